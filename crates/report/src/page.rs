//! A whole page: one file that needs nothing else.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::element::Element;

/// Which program has made a page.
const GENERATOR: &str = concat!("attndreambooth ", env!("CARGO_PKG_VERSION"));

const STYLE: &str = include_str!("../assets/style.css");

/// A part of a page with a heading, which the contents at the top lead to.
pub(crate) struct Section {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) body: Element,
}

impl Section {
    pub(crate) fn new(id: &'static str, title: &'static str, body: Element) -> Self {
        Self { id, title, body }
    }
}

/// Contents and sections, as they stand in `main`.
pub(crate) fn sections(sections: Vec<Section>) -> [Element; 2] {
    let links = sections.iter().map(|section| Element::of("a", section.title).attr("href", format!("#{}", section.id)));
    let contents = Element::new("nav").attr("aria-label", "Contents").children(links);
    let sections = sections.into_iter().map(|section| {
        Element::new("section").attr("id", section.id).child(Element::of("h2", section.title)).child(section.body)
    });
    [contents, Element::new("main").children(sections)]
}

/// Whether a file is a page of this program, of whichever version.
pub fn is_page(path: &Path) -> bool {
    /// The mark stands near the beginning.
    const HEAD: u64 = 4096;
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    read.is_ok() && String::from_utf8_lossy(&head).contains(r#"<meta name="generator" content="attndreambooth "#)
}

/// The document. Its policy allows pictures within the file and `script`, and nothing else: no network, and no other
/// script, should a text ever find its way out of where it belongs.
pub(crate) fn document(title: &str, script: &str, body: impl IntoIterator<Item = Element>) -> String {
    let hash = BASE64_STANDARD.encode(Sha256::digest(script));
    let policy = format!("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hash}'");
    let meta = |name, content: &str| Element::new("meta").attr("name", name).attr("content", content);
    let head = Element::new("head")
        .child(Element::new("meta").attr("charset", "utf-8"))
        .child(Element::new("meta").attr("http-equiv", "Content-Security-Policy").attr("content", policy))
        .child(meta("generator", GENERATOR))
        .child(meta("viewport", "width=device-width, initial-scale=1"))
        .child(meta("color-scheme", "light dark"))
        .child(Element::of("title", title))
        .child(Element::new("style").raw(STYLE));
    let body = Element::new("body").children(body).child(Element::new("script").raw(script));
    format!("<!doctype html>\n{}\n", Element::new("html").attr("lang", "en").child(head).child(body))
}
