//! The marks in the code.

use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use crate::Name;
use crate::recording::{self, ACTIVE};
use crate::state::Place;

/// Measures until it is dropped, in the thread that made it.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped: let _span = ..."]
pub struct Span {
    place: Option<Place>,
    /// Not `Send`: it is nested within the spans of its thread.
    _thread: PhantomData<*const ()>,
}

/// Measures from here to the end of the returned value's life, within the spans that are open in this thread.
#[inline]
pub fn span(name: impl Into<Name>) -> Span {
    let recording = ACTIVE.load(Ordering::Relaxed);
    let place = if recording == 0 { None } else { recording::open(recording, name.into()) };
    Span { place, _thread: PhantomData }
}

/// Measures a call of `run`.
#[inline]
pub fn timed<T>(name: impl Into<Name>, run: impl FnOnce() -> T) -> T {
    let _span = span(name);
    run()
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(place) = self.place {
            recording::close(place);
        }
    }
}
