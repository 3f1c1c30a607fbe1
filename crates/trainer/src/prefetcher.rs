//! Work that a thread of its own does ahead of time.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result};

/// A thread that makes the next item while the current one is used.
#[derive(Debug)]
pub(crate) struct Prefetcher<P, T> {
    /// Gone when the thread is to end.
    orders: Option<Sender<P>>,
    made: Receiver<(P, T)>,
    /// What was ordered last, and has not been taken.
    ordered: Option<P>,
    thread: Option<JoinHandle<()>>,
}

impl<P: Copy + PartialEq + Send + 'static, T: Send + 'static> Prefetcher<P, T> {
    /// Lets a thread of this name `make` what is ordered.
    pub(crate) fn new(name: &str, mut make: impl FnMut(P) -> T + Send + 'static) -> Result<Self> {
        let (orders, requested) = channel::<P>();
        let (finished, made) = channel();
        let work = move || {
            for order in requested {
                if finished.send((order, make(order))).is_err() {
                    return;
                }
            }
        };
        let thread = Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { orders: Some(orders), made, ordered: None, thread: Some(thread) })
    }

    /// What `order` asks for, made ahead or now; then `next` is started.
    pub(crate) fn take(&mut self, order: P, next: Option<P>) -> Result<T> {
        self.order(Some(order));
        let made = loop {
            let (of, made) = self.made.recv().context("the thread that makes batches has failed")?;
            // Where somebody goes back, what was ordered before comes first.
            if of == order {
                break made;
            }
        };
        self.ordered = None;
        self.order(next);
        Ok(made)
    }

    /// Lets the thread begin, if it has not.
    fn order(&mut self, order: Option<P>) {
        if let (Some(order), Some(orders)) = (order.filter(|_| order != self.ordered), &self.orders) {
            // A thread that has failed is noticed when nothing comes.
            let _ = orders.send(order);
        }
        self.ordered = order;
    }
}

impl<P, T> Drop for Prefetcher<P, T> {
    /// Waits for the thread: a process must not end while another thread is inside LibTorch.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_what_comes_whatever_was_started() {
        let mut ahead = Prefetcher::new("ahead", |number: u32| number * number).unwrap();
        for (order, next) in [(3, Some(4)), (4, Some(5)), (2, Some(3)), (3, None), (7, Some(7)), (7, None)] {
            assert_eq!(ahead.take(order, next).unwrap(), order * order);
        }
    }

    #[test]
    fn a_thread_that_has_failed_is_an_error() {
        let mut ahead = Prefetcher::new("ahead", |_: u32| -> u32 { std::panic::resume_unwind(Box::new(())) }).unwrap();
        assert!(ahead.take(1, None).unwrap_err().to_string().contains("has failed"));
    }
}
