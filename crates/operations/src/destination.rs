//! Where the results of many pieces of work go: a folder, or a URL and a folder here to work in.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use lease::{Claim, Lease};
use remote::{Leases, Store, is_inside, is_url};
use runs::{ResultsFolder, layout};
use serde::{Deserialize, Serialize};
use trainer::Checkpoint;

use crate::context::Context;
use crate::inputs;

/// Where the leases are, in the folder of all pieces.
const LEASES: &str = ".leases";
/// Where pieces are kept at a URL that are not done: what an interrupted one goes on from.
const CHECKPOINTS: &str = ".checkpoints";
/// The list of a piece's files in [`CHECKPOINTS`].
const MANIFEST: &str = "manifest.json";
/// Where markers are read from that are at a URL, in the folder to work in.
const DELIVERED: &str = ".delivered";

/// A folder, or a URL.
pub(crate) struct Destination {
    /// As it was given.
    out: PathBuf,
    /// Where work is done.
    folder: PathBuf,
    remote: Option<Remote>,
}

struct Remote {
    store: Store,
    /// For heartbeats.
    brief: Store,
    upload_checkpoints: bool,
}

impl Destination {
    /// Nothing is read, written or asked yet.
    ///
    /// # Errors
    /// When a URL cannot be used.
    pub(crate) fn new(out: &Path, upload_checkpoints: bool) -> Result<Self> {
        if !is_url(out) {
            ensure!(
                !upload_checkpoints,
                "--upload-checkpoints is of results at a URL: in {} checkpoints are where all workers see them",
                out.display()
            );
            return Ok(Self { out: out.to_owned(), folder: out.to_owned(), remote: None });
        }
        let url = out.to_str().context("a URL is no text")?;
        let store = Store::open(url)?;
        let folder = inputs::work_folder()?.join("results").join(remote::file_name(store.url()));
        let remote = Some(Remote { brief: Leases::brief(url)?, store, upload_checkpoints });
        Ok(Self { out: out.to_owned(), folder, remote })
    }

    /// Makes sure that results of `command` may go there; `made` are as of [`ResultsFolder::check`].
    ///
    /// # Errors
    /// When something else is there, or nothing can be written.
    pub(crate) fn create(&self, command: &'static str, made: &[&str]) -> Result<()> {
        let Some(Remote { store, .. }) = &self.remote else {
            return ResultsFolder::check(&self.folder, command, made)?.create();
        };
        let url = store.url();
        let is_new = store.look(ResultsFolder::MARK)?.is_none();
        if is_new && let Some(first) = store.list()?.first() {
            bail!(
                "{url} is not empty (it has {:?}) and has no results of {command:?}: choose another --out",
                first.name
            );
        }
        if !store.create(ResultsFolder::MARK, format!("{command}\n").as_bytes())? {
            bail!("{url} has results of another command than {command:?}: choose another --out");
        }
        Ok(())
    }

    /// Says where work is done, and what a URL does not promise.
    ///
    /// # Errors
    /// When nothing can be written there, or here.
    pub(crate) fn announce(&self, context: &Context<'_>) -> Result<()> {
        let Some(Remote { store, .. }) = &self.remote else { return Ok(()) };
        let url = store.url();
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        if !store.creates_conditionally()? {
            context.note(format!(
                "{url} cannot create a file only where there is none: nothing keeps two workers from one piece of work there, so \
                 give each its own by --index or --shard"
            ));
        }
        context.message(format!("working in {}; what is done goes to {url}", self.folder.display()));
        Ok(())
    }

    /// Where work is done: the folder of all pieces.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// As it was given.
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// Asks for a piece.
    ///
    /// # Errors
    /// As [`Lease::claim`].
    pub(crate) fn claim(&self, piece: &Path, on_loss: impl FnOnce() + Send + 'static) -> Result<Claim> {
        match &self.remote {
            None => Lease::of_folder(&self.folder.join(LEASES).join(piece), on_loss),
            Some(Remote { store, brief, .. }) => {
                let place = Leases::new(store, brief, &format!("{LEASES}/{}", name(piece)?))?;
                Lease::claim(Box::new(place), lease::EVERY, on_loss)
            }
        }
    }

    /// Whether results are somewhere else than work.
    pub(crate) fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// A folder with the marker of a piece that is done and at the URL; none where it is not.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn delivered(&self, piece: &Path, marker: &str) -> Result<Option<PathBuf>> {
        let Some(Remote { store, .. }) = &self.remote else { return Ok(None) };
        let Some(bytes) = store.read(&format!("{}/{marker}", name(piece)?), limits::TEXT_BYTES)? else {
            return Ok(None);
        };
        let folder = self.folder.join(DELIVERED).join(piece);
        write(&folder.join(marker), bytes)?;
        Ok(Some(folder))
    }

    /// A folder with the markers of all pieces that are done, and nothing else of them; where work is done in the place of results,
    /// that folder.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn markers(&self, marker: &str) -> Result<PathBuf> {
        let Some(Remote { store, .. }) = &self.remote else { return Ok(self.folder.clone()) };
        let folder = self.folder.join(".markers");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let end = format!("/{marker}");
        let found = store.list()?.into_iter().map(|object| object.name);
        for name in found.filter(|name| name.ends_with(&end) && !name.starts_with('.') && is_inside(name)) {
            if let Some(bytes) = store.read(&name, limits::TEXT_BYTES)? {
                write(&folder.join(&name), bytes)?;
            }
        }
        Ok(folder)
    }

    /// Uploads files of a folder; where work is done in the place of results, they are there.
    ///
    /// # Errors
    /// When one cannot be uploaded; it is kept here.
    pub(crate) fn upload(&self, folder: &Path, names: &[&str]) -> Result<()> {
        let Some(Remote { store, .. }) = &self.remote else { return Ok(()) };
        names.iter().try_for_each(|name| store.upload(&folder.join(name), name))
    }

    /// Uploads a piece that is done, last its marker, and removes it here.
    ///
    /// # Errors
    /// When a file cannot be uploaded; all are kept here.
    pub(crate) fn deliver(&self, piece: &Path, marker: &str, context: &Context<'_>) -> Result<()> {
        let Some(Remote { store, .. }) = &self.remote else { return Ok(()) };
        let (folder, at) = (self.folder.join(piece), name(piece)?);
        // Whoever asks to stop waits for it: what was computed is worth more than the time.
        let _deferral = context.stop().defer();
        let deliver = || {
            let files = files(&folder, None)?;
            let total = files.len() as u64;
            let mut progress = context.progress(format!("uploading {at}, files"));
            for file in files.iter().filter(|file| file.name != marker) {
                store.upload(&folder.join(&file.name), &format!("{at}/{}", file.name))?;
                progress.step(total, "");
            }
            let path = folder.join(marker);
            let bytes = limits::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            store.create(&format!("{at}/{marker}"), &bytes)
        };
        let kept = || format!("{at} is done and kept in {}; the same command uploads it", folder.display());
        if !deliver().with_context(kept)? {
            context.note(format!("{at} was done by another worker meanwhile, whose results stay"));
        }
        self.forget(piece)
    }

    /// Removes what is here, and checkpoints there, of a piece that is at the URL.
    ///
    /// # Errors
    /// When it cannot be removed here.
    pub(crate) fn forget(&self, piece: &Path) -> Result<()> {
        let Some(Remote { store, upload_checkpoints, .. }) = &self.remote else { return Ok(()) };
        if *upload_checkpoints {
            let saved = store.within(&format!("{CHECKPOINTS}/{}", name(piece)?))?;
            for object in saved.list()? {
                saved.remove(&object.name)?;
            }
        }
        let folder = self.folder.join(piece);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", folder.display()))
            }
            _ => Ok(()),
        }
    }

    /// What uploads the checkpoints of a piece, where that is wanted; its run is in the folder `run` of it.
    ///
    /// # Errors
    /// When the piece has no name.
    pub(crate) fn saver(&self, piece: &Path, run: &Path) -> Result<Option<Saver>> {
        let Some(Remote { store, upload_checkpoints: true, .. }) = &self.remote else { return Ok(None) };
        let store = store.within(&format!("{CHECKPOINTS}/{}", name(piece)?))?;
        let folder = self.folder.join(piece);
        let checkpoints = run.join(layout::CHECKPOINTS);
        Ok(Some(Saver { store, session: remote::random()?, folder, checkpoints, state: RefCell::default() }))
    }
}

/// Uploads what an interrupted piece goes on from. Whoever reads it sees one state of the piece or another, never parts of both.
pub(crate) struct Saver {
    store: Store,
    /// No two workers write one file.
    session: String,
    folder: PathBuf,
    /// Those of the run, as seen from the folder.
    checkpoints: PathBuf,
    state: RefCell<Saved>,
}

#[derive(Default)]
struct Saved {
    /// The checkpoint that was uploaded last.
    last: Option<PathBuf>,
    manifest: Manifest,
    /// How the files were that it lists.
    seen: BTreeMap<String, (u64, SystemTime)>,
    count: usize,
}

/// What is saved of a piece.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Manifest {
    /// By their names in the piece's folder, those beside this file.
    files: BTreeMap<String, Part>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Part {
    name: String,
    size: u64,
}

impl Saver {
    /// Uploads if there is another checkpoint than the last time. To be called between two steps, in the thread that trains.
    ///
    /// # Errors
    /// When a file cannot be read or uploaded; what was uploaded before stays good.
    pub(crate) fn look(&self) -> Result<()> {
        let folder = self.folder.join(&self.checkpoints);
        let Some((_, latest)) = Checkpoint::folder(&folder).latest()? else { return Ok(()) };
        let mut saved = self.state.borrow_mut();
        if saved.last.as_ref() == Some(&latest) {
            return Ok(());
        }
        let mut manifest = Manifest::default();
        let files = files(&self.folder, Some((&folder, &latest)))?;
        for file in &files {
            // What has not changed since is there.
            let now = (file.size, file.changed);
            let part = match (saved.seen.get(&file.name) == Some(&now), saved.manifest.files.get(&file.name)) {
                (true, Some(part)) => part.clone(),
                _ => {
                    saved.count += 1;
                    let part = Part { name: format!("{}-{}", self.session, saved.count), size: file.size };
                    self.store.upload(&self.folder.join(&file.name), &part.name)?;
                    part
                }
            };
            manifest.files.insert(file.name.clone(), part);
        }
        self.store.replace(MANIFEST, &serde_json::to_vec(&manifest)?)?;
        saved.seen = files.into_iter().map(|file| (file.name, (file.size, file.changed))).collect();
        saved.manifest = manifest;
        saved.last = Some(latest);
        for object in self.store.list()? {
            let used = saved.manifest.files.values().any(|part| part.name == object.name);
            if !used && object.name != MANIFEST {
                self.store.remove(&object.name)?;
            }
        }
        Ok(())
    }

    /// Puts what was saved into the piece's folder, if that has nothing yet. Returns whether it did.
    ///
    /// # Errors
    /// When a file cannot be downloaded or written.
    pub(crate) fn restore(&self) -> Result<bool> {
        let begun = fs::read_dir(&self.folder).is_ok_and(|mut entries| entries.next().is_some());
        if begun {
            return Ok(false);
        }
        let Some(bytes) = self.store.read(MANIFEST, limits::TEXT_BYTES)? else { return Ok(false) };
        let shown = format!("{}/{MANIFEST}", self.store.url());
        let manifest: Manifest =
            serde_json::from_slice(&bytes).with_context(|| format!("{shown} is no list of a checkpoint's files"))?;
        let wrong = manifest.files.iter().find(|(name, part)| !is_inside(name) || !is_inside(&part.name));
        ensure!(wrong.is_none(), "{shown} has a file that is not inside its folder");
        atomic::new_folder(&self.folder, |folder| {
            let part = |(name, part): (&String, &Part)| self.store.download(&part.name, &folder.join(name), part.size);
            manifest.files.iter().try_for_each(part)
        })?;
        Ok(true)
    }
}

/// A file of a piece.
struct FileOfPiece {
    /// As seen from the piece's folder, with slashes.
    name: String,
    size: u64,
    changed: SystemTime,
}

/// All files of a piece, in order, but for locks and what was not finished; of a folder of checkpoints the one that is named alone.
fn files(folder: &Path, latest: Option<(&Path, &Path)>) -> Result<Vec<FileOfPiece>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let failed = || format!("cannot read {}", next.display());
        for entry in fs::read_dir(&next).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let (path, called) = (entry.path(), entry.file_name());
            if called.as_encoded_bytes().starts_with(atomic::PARTIAL.as_bytes()) || called == ".lock" {
                continue;
            }
            let metadata = entry.metadata().with_context(failed)?;
            if metadata.is_dir() {
                let other = latest.is_some_and(|(all, latest)| next == all && path != latest);
                folders.extend((!other).then_some(path));
            } else if metadata.is_file() {
                let changed = metadata.modified().with_context(failed)?;
                found.push(FileOfPiece { name: name(path.strip_prefix(folder)?)?, size: metadata.len(), changed });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// A path within a folder as the name of a file at a URL.
fn name(path: &Path) -> Result<String> {
    let parts = path.iter().map(|part| part.to_str().with_context(|| format!("{} is no text", path.display())));
    Ok(parts.collect::<Result<Vec<_>>>()?.join("/"))
}

fn write(path: &Path, bytes: Vec<u8>) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    atomic::write(path, bytes)
}
