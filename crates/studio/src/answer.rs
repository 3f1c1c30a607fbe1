//! Pages, and what goes wrong on the way to them.

use std::fmt;

use anyhow::Error;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::{DOCTYPE, Markup, html};

/// A page with the studio's head.
pub(crate) struct Page {
    pub(crate) title: String,
    /// The entry of the menu that it belongs to.
    pub(crate) here: &'static str,
    /// The topic that it follows.
    pub(crate) live: Option<String>,
    /// Below the title.
    pub(crate) lead: Markup,
    pub(crate) body: Markup,
}

/// The menu.
const MENU: [(&str, &str); 5] =
    [("/", "Runs"), ("/teach", "Teach"), ("/generate", "Generate"), ("/gallery", "Gallery"), ("/compare", "Compare")];

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let Self { title, here, live, lead, body } = self;
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " – Studio" }
                    link rel="icon" href="data:,";
                    link rel="stylesheet" href="/assets/style.css";
                    script src="/assets/report.js" defer {}
                    script src="/assets/studio.js" defer {}
                }
                body data-live=[live] {
                    a class="skip" href="#main" { "To the content" }
                    nav aria-label="Studio" {
                        @for (url, name) in MENU {
                            a href=(url) aria-current=[(name == here).then_some("page")] { (name) }
                        }
                    }
                    header { h1 { (title) } (lead) }
                    main id="main" tabindex="-1" { (body) }
                    dialog id="large" aria-label="Image, large" {}
                }
            }
        };
        Html(visible(page)).into_response()
    }
}

/// HTML in which no character hides what a text says, as in the report.
pub(crate) fn visible(markup: Markup) -> String {
    terminal::escaped_lines(&markup.into_string()).to_string()
}

/// Why there is no such page, in a sentence.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) said: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, said: impl fmt::Display) -> Self {
        Self { status, said: said.to_string() }
    }

    pub(crate) fn not_found(said: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, said)
    }
}

/// What was asked for cannot be done, for a reason that its user can mend.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = html! {
            section {
                p role="alert" { (sentence(&self.said)) }
                p { a href="/" { "To the runs" } }
            }
        };
        let page = Page { title: "That did not work".into(), here: "", live: None, lead: html! {}, body };
        (self.status, page).into_response()
    }
}

pub(crate) type Answer<T = Page> = Result<T, Failure>;

/// After something was done: the page that shows it.
pub(crate) fn see(url: impl AsRef<str>) -> Redirect {
    Redirect::to(url.as_ref())
}

/// Runs what may wait for the disk in a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "this is a defect of the studio; please report it")
    })
}

/// An error of the program as a sentence on a page.
pub(crate) fn sentence(said: &str) -> String {
    let mut letters = said.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if said.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}
