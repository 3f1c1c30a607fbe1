//! Work in pieces that stand each for itself, which several processes and machines share out.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use lease::{Claim, EVERY, Holder, MISSED};
use requests::{Pieces, Share};

use crate::context::{Context, Event, Interrupted};
use crate::destination::{Destination, Saver};
use crate::memory::guarded;

/// A piece of work.
pub(crate) trait Piece {
    /// What it is called.
    fn name(&self) -> String;

    /// Where it is, as seen from the folder of all pieces.
    fn place(&self) -> PathBuf;

    /// The file in its place that is written last and says that it is done.
    fn marker(&self) -> &'static str;

    /// The folder of its run, as seen from its place.
    fn run(&self) -> PathBuf;

    /// Refuses a piece that is done and was made by something else than what is asked for. `folder` has its marker and nothing else,
    /// `shown` is where that comes from.
    ///
    /// # Errors
    /// Names what differs.
    fn check(&self, folder: &Path, shown: &Path) -> Result<()>;

    /// Whether nothing is left to do.
    ///
    /// # Errors
    /// When what is there was made by something else than what is asked for.
    fn is_done(&self) -> Result<bool>;

    /// Does what is left to do, however much of it was done before.
    ///
    /// # Errors
    /// What is wrong with this piece, or [`Interrupted`].
    fn work(&self, context: &Context<'_>) -> Result<()>;

    /// After it is done, and again whenever it is found done.
    ///
    /// # Errors
    /// When a file cannot be removed.
    fn tidy(&self) -> Result<()> {
        Ok(())
    }
}

/// What has become of one.
enum Attempt {
    Done,
    Failed(String),
    /// Somebody else is at it, who certainly lives if that is true.
    Theirs(Holder, bool),
}

/// Which of `all` pieces are this process's, by its options or its scheduler; `kind` is what they are called.
///
/// # Errors
/// A number beyond the last one, or a scheduler's variable that is none.
pub(crate) fn part(kind: &str, all: usize, share: Share) -> Result<Pieces> {
    let part = Pieces::of(share, &|name| std::env::var(name).ok())?;
    if let Pieces::One(index, said_by) = &part {
        let last = all.saturating_sub(1);
        ensure!(*index <= last, "there is no {kind} {index} ({said_by}): the {kind}s are numbered from 0 to {last}");
    }
    Ok(part)
}

/// Does the pieces of a part, and returns how many of them are done now.
///
/// # Errors
/// Lists all that failed, after the others are done. What [`Piece::is_done`] refuses; [`Interrupted`], also where the only piece is
/// somebody else's.
pub(crate) fn work<P: Piece>(
    kind: &str,
    all: &[P],
    part: &Pieces,
    out: &Destination,
    context: &Context<'_>,
) -> Result<usize> {
    out.announce(context)?;
    let chosen: Vec<(usize, &P)> = all.iter().enumerate().filter(|(number, _)| part.has(*number)).collect();
    let (mut done, mut failed, mut theirs) = (0, Vec::new(), Vec::new());
    for (number, piece) in &chosen {
        context.check()?;
        match attempt(kind, *piece, (*number, all.len()), out, context)? {
            Attempt::Done => done += 1,
            Attempt::Failed(reason) => failed.push((piece.name(), reason)),
            Attempt::Theirs(holder, alive) => theirs.push((*number, *piece, holder, alive)),
        }
    }
    // Those of workers that have died become free within this time, by the next heartbeat that others show.
    let until = Instant::now() + EVERY * (MISSED + 1);
    let mut busy = Vec::new();
    while let Some((number, piece, seen, alive)) = theirs.pop() {
        if alive || Instant::now() > until {
            busy.push((piece.name(), seen));
            continue;
        }
        context.check()?;
        match attempt(kind, piece, (number, all.len()), out, context)? {
            Attempt::Done => done += 1,
            Attempt::Failed(reason) => failed.push((piece.name(), reason)),
            Attempt::Theirs(holder, alive) => {
                let beats = holder != seen;
                theirs.insert(0, (number, piece, seen, alive || beats));
                thread::sleep(Duration::from_millis(500));
            }
        }
    }
    for (name, holder) in &busy {
        context.note(format!("{kind} {name} is being done by {holder}"));
    }
    if let Some((first, reason)) = failed.first() {
        let of = chosen.len();
        let list: String = failed.iter().map(|(name, reason)| format!("\n  {name}: {reason}")).collect();
        match failed.len() {
            1 => bail!("1 of {of} {kind}s failed, {first}: {reason}"),
            failed => bail!("{failed} of {of} {kind}s failed:{list}"),
        }
    }
    match (part, busy.pop()) {
        (Pieces::One(..), Some((name, holder))) => {
            Err(Interrupted(format!("{kind} {name} is being done by {holder}; the same command sees to it later"))
                .into())
        }
        _ => Ok(done),
    }
}

fn attempt<P: Piece>(
    kind: &str,
    piece: &P,
    (number, all): (usize, usize),
    out: &Destination,
    context: &Context<'_>,
) -> Result<Attempt> {
    if is_done(piece, out)? {
        piece.tidy()?;
        return Ok(Attempt::Done);
    }
    let (place, stop) = (piece.place(), context.stop().clone());
    let _lease = match out.claim(&place, move || stop.lose())? {
        Claim::Ours(lease) => lease,
        Claim::Theirs { holder, alive } => return Ok(Attempt::Theirs(holder, alive)),
    };
    // It may have been finished meanwhile.
    if is_done(piece, out)? {
        piece.tidy()?;
        return Ok(Attempt::Done);
    }
    // What goes to a URL may be done here and not be there.
    if !piece.is_done()? {
        let name = piece.name();
        context.message(format!("{kind} {number} of {all}: {name}"));
        let saver = out.saver(&place, &piece.run())?;
        match guarded(|| saved(piece, saver.as_ref(), context)) {
            Ok(()) => {}
            Err(error) if crate::is_interruption(&error) => {
                return Err(Interrupted("what was done is kept; the same command continues it".to_owned()).into());
            }
            // One that cannot be done does not keep the others waiting.
            Err(error) => {
                context.note(format!("{kind} {name} failed: {error:#}"));
                return Ok(Attempt::Failed(format!("{error:#}")));
            }
        }
    }
    piece.tidy()?;
    out.deliver(&place, piece.marker(), context)?;
    Ok(Attempt::Done)
}

/// Whether a piece is done and where its results go.
fn is_done<P: Piece>(piece: &P, out: &Destination) -> Result<bool> {
    if !out.is_remote() {
        return piece.is_done();
    }
    let place = piece.place();
    let Some(folder) = out.delivered(&place, piece.marker())? else { return Ok(false) };
    piece.check(&folder, &out.out().join(&place))?;
    out.forget(&place)?;
    Ok(true)
}

/// Does a piece, from the checkpoint that another worker has uploaded, and uploads its own.
fn saved<P: Piece>(piece: &P, saver: Option<&Saver>, context: &Context<'_>) -> Result<()> {
    let Some(saver) = saver else { return piece.work(context) };
    if saver.restore()? {
        context.message(format!("{} goes on from a checkpoint that was uploaded", piece.name()));
    }
    // The training goes on without it, and the next checkpoint is uploaded again.
    let look = || {
        if let Err(error) = saver.look() {
            context.note(format!("a checkpoint of {} is not uploaded: {error:#}", piece.name()));
        }
    };
    let tell = |event: Event| match event {
        Event::Note { text } => context.note(text),
        Event::Step { .. } => {
            context.tell(event);
            look();
        }
        _ => context.tell(event),
    };
    let worked = piece.work(&Context::new(&tell, context.stop().clone()));
    if worked.as_ref().is_err_and(crate::is_interruption) {
        look();
    }
    worked
}
