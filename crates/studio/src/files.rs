//! Files as answers: images, downloads, and the pages' own style and scripts.

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use axum::http::header::{self, HeaderName};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use image::codecs::jpeg::JpegEncoder;
use images::{Filter, resize, with_short_side};
use photos::{Options, Photo};
use tokio::sync::mpsc;

/// A page of this program that may run its scripts, and nothing else: no request, no form, no way to the studio.
pub(crate) const ALONE: [(HeaderName, &str); 1] =
    [(header::CONTENT_SECURITY_POLICY, "sandbox allow-scripts allow-downloads; frame-ancestors 'none'")];

/// The shorter side of a thumbnail.
const THUMBNAIL: u32 = 192;
/// An image that is shown has no more bytes.
const MOST_BYTES: u64 = 256 << 20;
const CHUNK: usize = 256 << 10;

/// The style sheet: the report's, and what pages with forms have beside it.
pub(crate) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css"), CACHED], concat_style()).into_response()
}

fn concat_style() -> String {
    format!("{}{}", report::STYLE, include_str!("../assets/studio.css"))
}

pub(crate) async fn report_script() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript"), CACHED], report::SCRIPT).into_response()
}

pub(crate) async fn script() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript"), CACHED], include_str!("../assets/studio.js")).into_response()
}

/// Shortly: another version of the program may be at this address soon.
const CACHED: (HeaderName, &str) = (header::CACHE_CONTROL, "private, max-age=60");

/// An image file as it is. What has a name never changes, or its address does.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn image(path: &Path) -> Result<Response> {
    let bytes = limits::read_at_most(path, MOST_BYTES).context("there is no such image")?;
    let cached = (header::CACHE_CONTROL, "private, max-age=3600");
    Ok(([(header::CONTENT_TYPE, "image/png"), cached], bytes).into_response())
}

/// A photo made small.
///
/// # Errors
/// When it is none.
pub(crate) fn thumbnail(path: &Path) -> Result<Response> {
    let photo = Photo::open(path, &Options { max_short_side: Some(THUMBNAIL), ..Options::default() })?;
    let (width, height) = photo.pixels.dimensions();
    let small = with_short_side(width, height, THUMBNAIL.min(width.min(height)));
    let pixels = resize(&photo.pixels, small.0 as u32, small.1 as u32, Filter::Bilinear);
    let mut bytes = Cursor::new(Vec::new());
    pixels.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 88))?;
    let cached = (header::CACHE_CONTROL, "private, max-age=3600");
    Ok(([(header::CONTENT_TYPE, "image/jpeg"), cached], bytes.into_inner()).into_response())
}

/// A file to be kept, or a folder as a tar archive, sent as it is read.
///
/// # Errors
/// When it is not there.
pub(crate) fn download(path: &Path, name: &str) -> Result<Response> {
    let metadata = fs::metadata(path).with_context(|| format!("there is no file {name:?}"))?;
    let name = if metadata.is_dir() { format!("{name}.tar") } else { name.to_owned() };
    let kept = format!("attachment; filename*=UTF-8''{}", crate::name::encoded(&name));
    let headers = [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_DISPOSITION, kept)];
    let path = path.to_owned();
    if metadata.is_dir() {
        let folder = name.trim_end_matches(".tar").to_owned();
        return Ok((headers, sent(move |to| archive(&path, &folder, to))).into_response());
    }
    let length = (header::CONTENT_LENGTH, metadata.len().to_string());
    let body = sent(move |to| {
        let mut to = io::BufWriter::with_capacity(CHUNK, to);
        io::copy(&mut File::open(path)?, &mut to)?;
        to.flush()
    });
    Ok((headers, [length], body).into_response())
}

fn archive(folder: &PathBuf, name: &str, to: Sender) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(CHUNK, to));
    archive.append_dir_all(name, folder)?;
    archive.into_inner()?.flush()
}

/// A body that another thread writes, no faster than it is taken.
fn sent(write: impl FnOnce(Sender) -> io::Result<()> + Send + 'static) -> Body {
    let (sender, receiver) = mpsc::channel(4);
    let failed = sender.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(Sender(sender)) {
            // The connection is cut off, so that half a file is not taken for a whole one.
            let _ = failed.blocking_send(Err(error));
        }
    });
    Body::from_stream(stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }))
}

struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(CHUNK)];
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Ok(Bytes::copy_from_slice(part))).map_err(gone)?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file's bytes for an answer that needs them all.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = limits::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
