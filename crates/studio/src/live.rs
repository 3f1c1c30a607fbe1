//! Pages that follow what happens: parts of a page as HTML, sent again when they have changed (Server-Sent Events).
//!
//! However many clients follow a topic, it is rendered once a second at most, and not at all where nobody does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::stream::{self, Stream};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// How often it is looked whether anything has changed.
const TICK: Duration = Duration::from_secs(1);

/// The `id`s of a page's elements, and what is to be in them.
pub(crate) type Parts = Vec<(String, String)>;

/// Renders the parts of a topic.
pub(crate) type Render = Arc<dyn Fn() -> Parts + Send + Sync>;

/// A part as it is sent.
#[derive(Debug, Clone)]
struct Sent {
    id: String,
    html: String,
    /// The tick at which it has changed.
    at: u64,
    message: Arc<str>,
}

type Topic = watch::Receiver<Arc<Vec<Sent>>>;

/// What is followed now.
#[derive(Debug, Default)]
pub(crate) struct Live {
    topics: Mutex<HashMap<String, Topic>>,
}

impl Live {
    /// The parts of a topic now, and whenever they change. `render` is called in a thread that may wait.
    pub(crate) fn follow(
        self: &Arc<Self>,
        topic: &str,
        render: Render,
    ) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<>> {
        let followed = {
            let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            let start = || {
                let (sender, receiver) = watch::channel(Arc::default());
                tokio::spawn(self.clone().publish(topic.to_owned(), sender, render));
                receiver
            };
            topics.entry(topic.to_owned()).or_insert_with(start).clone()
        };
        let messages = stream::unfold((followed, 0), |(mut followed, mut sent)| async move {
            loop {
                let parts = followed.borrow_and_update().clone();
                let new: Vec<&str> = parts.iter().filter(|part| part.at > sent).map(|part| &*part.message).collect();
                if !new.is_empty() {
                    let event = Event::default().data(format!("[{}]", new.join(",")));
                    sent = parts.iter().map(|part| part.at).max().unwrap_or(sent);
                    return Some((Ok(event), (followed, sent)));
                }
                followed.changed().await.ok()?;
            }
        });
        Sse::new(messages).keep_alive(KeepAlive::default())
    }

    /// Renders a topic as long as anybody follows it.
    async fn publish(self: Arc<Self>, topic: String, sender: watch::Sender<Arc<Vec<Sent>>>, render: Render) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut parts: Vec<Sent> = Vec::new();
        for tick in 1.. {
            ticks.tick().await;
            if self.is_left(&topic, &sender) {
                return;
            }
            let render = render.clone();
            let Ok(rendered) = tokio::task::spawn_blocking(move || render()).await else { return };
            let mut changed = false;
            for (id, html) in rendered {
                let old = parts.iter_mut().find(|part| part.id == id);
                if old.as_ref().is_some_and(|old| old.html == html) {
                    continue;
                }
                changed = true;
                let message = json!({ "id": id, "html": html }).to_string().into();
                let new = Sent { id, html, at: tick, message };
                match old {
                    Some(old) => *old = new,
                    None => parts.push(new),
                }
            }
            if changed {
                sender.send_replace(Arc::new(parts.clone()));
            }
        }
    }

    /// Forgets a topic that nobody follows but this.
    fn is_left(&self, topic: &str, sender: &watch::Sender<Arc<Vec<Sent>>>) -> bool {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let left = sender.receiver_count() <= 1;
        if left {
            topics.remove(topic);
        }
        left
    }
}
