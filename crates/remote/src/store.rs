//! A folder at a URL.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, WriteMultipart};
use tokio::runtime::{Builder, Runtime};

use crate::address::Address;
use crate::failure::{failure, is_cut};
use crate::patience::Patience;

/// Larger files go in parts of at least this size, several at a time.
const PART: u64 = 8 << 20;
/// S3 takes 10,000 parts.
const MOST_PARTS: u64 = 9_000;
const PARTS_AT_A_TIME: usize = 4;
/// What is sent as one where a server takes no parts.
const MOST_AT_ONCE: u64 = 1 << 30;
/// The wait before a request whose answer was cut.
const PAUSE: Duration = Duration::from_millis(500);
/// Files of a listing.
const MOST_LISTED: usize = 1_000_000;

/// A file in a [`Store`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name, with slashes, as seen from the store.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// When it was written, by the server's clock.
    pub written: SystemTime,
    /// What changes with its contents, where the server says it.
    pub etag: Option<String>,
}

/// A folder at a URL. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Store {
    address: String,
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    is_folder: bool,
    patience: Patience,
    known: Arc<Mutex<Option<Known>>>,
}

/// What a store can do.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Whether it creates conditionally.
    creates: bool,
    /// A moment by the server's clock, and by this process's.
    clock: (SystemTime, Instant),
}

/// Requests go on in its threads, whatever thread waits for them.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let start = || Builder::new_multi_thread().worker_threads(2).thread_name("remote").enable_all().build().ok();
    RUNTIME.get_or_init(start).as_ref().context("cannot start the threads that talk to servers")
}

impl Store {
    /// The store of a URL, by the credentials of the environment. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When the URL or the environment cannot be used.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_with(url, Patience::LONG)
    }

    /// The same with another patience.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(url: &str, patience: Patience) -> Result<Self> {
        let address = Address::parse(url)?;
        let _entered = runtime()?.enter();
        let shown = address.url.as_str().trim_end_matches('/').to_owned();
        let store = address
            .connect(patience)
            .map_err(|error| failure(&format!("cannot use {shown} by what the environment says of it"), &error))?;
        Ok(Self {
            address: shown,
            store: store.into(),
            is_folder: address.scheme == ObjectStoreScheme::Local,
            prefix: address.path,
            patience,
            known: Arc::default(),
        })
    }

    /// A folder within it.
    ///
    /// # Errors
    /// When `folder` is no name of one.
    pub fn within(&self, folder: &str) -> Result<Self> {
        let address = format!("{}/{folder}", self.address);
        Ok(Self { address, prefix: self.key(folder)?, ..self.clone() })
    }

    /// The URL, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.address
    }

    /// Whether a file is created only where there is none: what leases and done-markers rest on. Tried out once.
    ///
    /// # Errors
    /// When nothing can be written.
    pub fn creates_conditionally(&self) -> Result<bool> {
        Ok(self.known()?.creates)
    }

    /// Uploads a whole file; a large one in parts, of which nothing is seen until all are there.
    ///
    /// # Errors
    /// When the file cannot be read, or the server does not take it.
    pub fn upload(&self, file: &Path, name: &str) -> Result<()> {
        let unreadable = || format!("cannot read {}", file.display());
        let mut opened = limits::open(file).with_context(unreadable)?;
        let size = opened.metadata().with_context(unreadable)?.len();
        let key = self.key(name)?;
        let failed = |error: object_store::Error| {
            failure(&format!("cannot upload {} to {}/{name}", file.display(), self.address), &error)
        };
        let multipart = match size <= PART {
            true => None,
            false => match runtime()?.block_on(self.store.put_multipart(&key)) {
                Err(object_store::Error::NotImplemented { .. }) => {
                    ensure!(
                        size <= MOST_AT_ONCE,
                        "cannot upload {} to {}: the server takes no file in parts, and at once only up to 1 GiB",
                        file.display(),
                        self.address
                    );
                    None
                }
                started => Some(started.map_err(failed)?),
            },
        };
        let Some(multipart) = multipart else {
            let mut bytes = Vec::new();
            opened.read_to_end(&mut bytes).with_context(unreadable)?;
            return runtime()?.block_on(self.store.put(&key, bytes.into())).map(|_| ()).map_err(failed);
        };
        let part = PART.max(size.div_ceil(MOST_PARTS)) as usize;
        let mut writer = WriteMultipart::new_with_chunk_size(multipart, part);
        // A connection that cannot be used any more must not keep its parts, which cost.
        match send(&mut writer, &mut opened, part) {
            Ok(sent) if sent == size => runtime()?.block_on(writer.finish()).map(|_| ()).map_err(failed),
            other => {
                let _ = runtime()?.block_on(writer.abort());
                match other {
                    Ok(_) => anyhow::bail!("{} has changed while it was uploaded", file.display()),
                    Err(Broken::Here(error)) => Err(error).with_context(unreadable),
                    Err(Broken::There(error)) => Err(failed(error)),
                }
            }
        }
    }

    /// Writes a small file that must be new; returns whether it is. One that has these bytes already counts as new, for an answer may
    /// have been lost. Where the server knows no condition, two at the same time may both be told so.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        let key = self.key(name)?;
        if !self.creates_conditionally()? {
            let there = self.read(name, bytes.len() as u64)?;
            if let Some(there) = there {
                return Ok(there == bytes);
            }
            self.replace(name, bytes)?;
            return Ok(true);
        }
        let created = self.put_new(&key, bytes);
        match created {
            Ok(()) => Ok(true),
            // Longer than these bytes is not these bytes.
            Err(object_store::Error::AlreadyExists { .. }) => {
                Ok(self.bytes(&key, bytes.len() as u64).is_ok_and(|there| there.is_some_and(|there| there == bytes)))
            }
            Err(error) => Err(failure(&format!("cannot create {}/{name}", self.address), &error)),
        }
    }

    /// Writes a small file, in the place of what is there.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let key = self.key(name)?;
        let put = self.ask(|| self.store.put(&key, Bytes::copy_from_slice(bytes).into()))?;
        put.map(|_| ()).map_err(|error| failure(&format!("cannot write {}/{name}", self.address), &error))
    }

    /// The bytes of a file; none where it is not there.
    ///
    /// # Errors
    /// When it has more than `most`, or cannot be read.
    pub fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let key = self.key(name)?;
        self.bytes(&key, most).with_context(|| format!("cannot read {}/{name}", self.address))
    }

    /// What is known of a file; none where it is not there.
    ///
    /// # Errors
    /// When the server does not say.
    pub fn look(&self, name: &str) -> Result<Option<Object>> {
        let key = self.key(name)?;
        if key.as_ref().is_empty() {
            return Ok(None);
        }
        match self.ask(|| self.store.head(&key))? {
            Ok(meta) => Ok(Some(Object { name: name.to_owned(), ..object(&meta) })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failure(&format!("cannot look at {}/{name}", self.address), &error)),
        }
    }

    /// Downloads a file of at most `most` bytes; it has its name when it is complete.
    ///
    /// # Errors
    /// When it is not there, larger, or breaks off for good; or cannot be written.
    pub fn download(&self, name: &str, to: &Path, most: u64) -> Result<()> {
        let key = self.key(name)?;
        let failed = |error: object_store::Error| failure(&format!("cannot download {}/{name}", self.address), &error);
        let found = runtime()?.block_on(self.store.get(&key)).map_err(failed)?;
        let size = found.meta.size;
        ensure!(size <= most, "{}/{name} has {size} bytes, more than the {most} that are downloaded", self.address);
        let mut stream = found.into_stream();
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        atomic::replace_file(to, |file, _| {
            let mut written = 0;
            while let Some(bytes) = runtime()?.block_on(stream.next()) {
                let bytes = bytes.map_err(failed)?;
                written += bytes.len() as u64;
                ensure!(written <= size, "{}/{name} has more than its {size} bytes", self.address);
                file.write_all(&bytes).with_context(|| format!("cannot write {}", to.display()))?;
            }
            ensure!(written == size, "{}/{name} ended after {written} of {size} bytes", self.address);
            Ok(())
        })
    }

    /// All files below, in the order of their names.
    ///
    /// # Errors
    /// When the server does not say, or they are too many.
    pub fn list(&self) -> Result<Vec<Object>> {
        let failed = |error: object_store::Error| {
            let plain =
                if self.address.starts_with("http") { ", for a plain web server gives single files alone" } else { "" };
            failure(&format!("cannot list {}{plain}", self.address), &error)
        };
        let list = || self.store.list(Some(&self.prefix)).take(MOST_LISTED + 1).try_collect::<Vec<_>>();
        let found = match self.ask(list)? {
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            found => found.map_err(failed)?,
        };
        ensure!(found.len() <= MOST_LISTED, "{} has more than {MOST_LISTED} files", self.address);
        let named = found.iter().filter_map(|meta| {
            let parts: Vec<_> = meta.location.prefix_match(&self.prefix)?.collect();
            let name = parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/");
            (!name.is_empty()).then(|| Object { name, ..object(meta) })
        });
        let mut objects: Vec<Object> = named.collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// When the server does not let it.
    pub fn remove(&self, name: &str) -> Result<()> {
        match runtime()?.block_on(self.store.delete(&self.key(name)?)) {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            removed => removed.map_err(|error| failure(&format!("cannot remove {}/{name}", self.address), &error)),
        }
    }

    /// How long ago a moment of the server's clock was, or less.
    ///
    /// # Errors
    /// As [`Store::creates_conditionally`].
    pub(crate) fn age(&self, written: SystemTime) -> Result<Duration> {
        let (theirs, ours) = self.known()?.clock;
        Ok((theirs + ours.elapsed()).duration_since(written).unwrap_or_default())
    }

    fn known(&self) -> Result<Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some(known) => Ok(known),
            None => Ok(*known.insert(self.try_out()?)),
        }
    }

    /// Whether a second creation of one file is refused, as it must be, and what time it is there.
    fn try_out(&self) -> Result<Known> {
        let name = format!(".probe-{}", random()?);
        let failed = |error: &object_store::Error| failure(&format!("cannot write to {}", self.address), error);
        let key = self.key(&name)?;
        let creates = match self.put_new(&key, b"1") {
            Ok(()) => match self.put_new(&key, b"2") {
                Err(object_store::Error::AlreadyExists { .. }) => true,
                Ok(()) => false,
                Err(error) => return Err(failed(&error)),
            },
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                self.replace(&name, b"1")?;
                false
            }
            // Its answer came too late, and it was asked again.
            Err(object_store::Error::AlreadyExists { .. }) => true,
            Err(error) => return Err(failed(&error)),
        };
        let there = self.look(&name)?.with_context(|| format!("{} forgets what is written to it", self.address))?;
        let clock = (there.written, Instant::now());
        self.remove(&name)?;
        Ok(Known { creates, clock })
    }

    fn put_new(&self, key: &Key, bytes: &[u8]) -> object_store::Result<()> {
        let put = || self.store.put_opts(key, Bytes::copy_from_slice(bytes).into(), PutMode::Create.into());
        let put = self.ask(put).map_err(|error| object_store::Error::Generic { store: "", source: error.into() })?;
        put.map(|_| ())
    }

    fn bytes(&self, key: &Key, most: u64) -> Result<Option<Vec<u8>>> {
        let read = || async {
            let found = self.store.get(key).await?;
            let size = found.meta.size;
            Ok(if size <= most { Ok(found.bytes().await?) } else { Err(size) })
        };
        match self.ask(read)? {
            Ok(Ok(bytes)) => Ok(Some(bytes.into())),
            Ok(Err(size)) => anyhow::bail!("it has {size} bytes, more than the {most} that are read"),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failure("from the server", &error)),
        }
    }

    /// Asks once more where an answer was cut: the crate does so before an answer begins, and within some.
    fn ask<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        request: impl Fn() -> F,
    ) -> Result<object_store::Result<T>> {
        let begun = Instant::now();
        loop {
            let answer = runtime()?.block_on(request());
            let again = answer.as_ref().is_err_and(is_cut) && begun.elapsed() < self.patience.total;
            if !again {
                return Ok(answer);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn key(&self, name: &str) -> Result<Key> {
        let whole = match self.prefix.as_ref() {
            "" => name.to_owned(),
            prefix if name.is_empty() => prefix.to_owned(),
            prefix => format!("{prefix}/{name}"),
        };
        Key::parse(&whole).with_context(|| format!("{name:?} cannot be the name of a file in {}", self.address))
    }

    /// The folder that it is, where the URL is of one.
    pub(crate) fn folder(&self) -> Option<std::path::PathBuf> {
        self.is_folder.then(|| Path::new("/").join(self.prefix.as_ref()))
    }
}

/// What keeps a file from being sent.
enum Broken {
    Here(std::io::Error),
    There(object_store::Error),
}

fn send(writer: &mut WriteMultipart, file: &mut File, part: usize) -> Result<u64, Broken> {
    let runtime = runtime().map_err(|error| Broken::Here(std::io::Error::other(error)))?;
    // Parts are sent by tasks.
    let _entered = runtime.enter();
    let mut sent = 0;
    loop {
        let mut bytes = Vec::with_capacity(part);
        Read::take(&mut *file, part as u64).read_to_end(&mut bytes).map_err(Broken::Here)?;
        if bytes.is_empty() {
            return Ok(sent);
        }
        sent += bytes.len() as u64;
        runtime.block_on(writer.wait_for_capacity(PARTS_AT_A_TIME)).map_err(Broken::There)?;
        writer.put(bytes.into());
    }
}

fn object(meta: &ObjectMeta) -> Object {
    let (name, etag) = (String::new(), meta.e_tag.clone());
    Object { name, size: meta.size, written: meta.last_modified.into(), etag }
}

/// A name that nobody else has.
///
/// # Errors
/// When the system has no random numbers.
pub fn random() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system has no random numbers: {error}"))?;
    Ok(hex::encode(bytes))
}
