//! What a run needs of the disk, found out before it starts.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use runs::{Group, Phase, Validation};
use tch::Tensor;

use crate::Trainer;
use crate::outputs::Outputs;
use crate::phases::groups_until;
use crate::prior::PriorImages;

/// Bytes that are worth a word to the user.
const WORTH_SAYING: u64 = 1_000_000_000;
/// For the log, events, curves and the contact sheet.
const SMALL_FILES: u64 = 4_000_000;
/// Where a run writes what [`Need`] counts, but for prior images.
const COUNTED: [&str; 6] = ["checkpoints", "phases", "snapshots", "text_encoder", "unet", "validation"];

/// Bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Need {
    /// The largest checkpoint, of which there are two while one is replaced.
    checkpoint: u64,
    /// At most at any moment.
    peak: u64,
    /// When all is done.
    rest: u64,
}

/// Makes sure that a run fits on its disk, beside what it has written already; says what it needs if that is much.
///
/// # Errors
/// When it does not fit. A file system that does not say what is free is taken to have enough.
pub(crate) fn check(trainer: &Trainer, prior: &[PriorImages], out: &Path) -> Result<Option<String>> {
    let mut need = need(trainer);
    for prior in prior {
        let images = image_bytes(trainer).saturating_mul(prior.missing() as u64);
        if prior.folder().starts_with(out) {
            need.peak = need.peak.saturating_add(images);
            need.rest = need.rest.saturating_add(images);
        } else if let Some(free) = free(prior.folder()).filter(|free| *free < images) {
            bail!(
                "{} prior images need {} in {}, but {} are free there: make room, or give another --prior-folder or fewer \
                 --prior-images",
                prior.missing(),
                text(images),
                prior.folder().display(),
                text(free)
            );
        }
    }
    let there = COUNTED.iter().map(|name| size(&out.join(name))).fold(0, u64::saturating_add);
    decide(need, there, free(out), out)
}

fn decide(need: Need, there: u64, free: Option<u64>, out: &Path) -> Result<Option<String>> {
    let (more, shown) = (need.peak.saturating_sub(there), out.display());
    let Some(free) = free else { return Ok(None) };
    if free < more {
        bail!(
            "the run in {shown} needs {} more on its disk (a checkpoint has {}, and there are two while one is replaced), \
             but {} are free there: make room, or choose another --out",
            text(more),
            text(need.checkpoint),
            text(free)
        );
    }
    Ok((more >= WORTH_SAYING).then(|| {
        format!(
            "{shown} will take up to {} while it trains, and {} when it is done; {} are free",
            text(need.peak),
            text(need.rest),
            text(free)
        )
    }))
}

/// The most bytes that a run has on its disk while it trains, images of the class noun not counted.
pub(crate) fn peak(trainer: &Trainer) -> u64 {
    need(trainer).peak
}

fn need(trainer: &Trainer) -> Need {
    let config = &trainer.config;
    let of = |group: Group| sum(trainer.parameters(group).into_iter().map(|(_, tensor)| tensor));
    let checkpoint = |number: usize| {
        let trained = config.phases.get_index(number).into_iter().flat_map(|(_, phase)| phase.trains.keys());
        // AdamW's two moments beside the weights, and the running average.
        let copies = |group: Group| 2 + u64::from(group == Group::Unet && config.ema.is_some());
        let weights: u64 = groups_until(config, number).into_iter().map(of).sum();
        weights + trained.map(|group| copies(*group) * of(*group)).sum::<u64>()
    };
    let phases = config.phases.values().enumerate().filter(|(_, phase)| phase.steps > 0);
    let checkpoint = phases.map(|(number, _)| checkpoint(number)).max().unwrap_or(0);
    let results: u64 = Outputs::groups(config).into_iter().map(of).sum();
    let Validation { every, prompts, .. } = &config.validation;
    let steps = config.steps();
    // One more for the samples at the end.
    let grids = steps.checked_div(*every).unwrap_or(0) as u64 + 1;
    let images = image_bytes(trainer).saturating_mul(prompts.len() as u64).saturating_mul(grids);
    let repeated = (0..config.phases.len()).flat_map(|number| Outputs::repeated(config, number)).map(of);
    let kept = repeated.sum::<u64>() + SMALL_FILES;
    let kept = kept.saturating_add(images);
    let snapshot = |(number, ..): (usize, &str, &Phase)| {
        trainer.trained(number).map_or(0, |trained| sum(trained.into_iter().map(|(_, tensor)| tensor)))
    };
    let most = config.stop.as_ref().map_or(0, runs::Stop::most_snapshots) as u64;
    let snapshots = most.saturating_mul(config.last_phase().map_or(0, snapshot));
    Need {
        checkpoint,
        peak: kept.saturating_add(snapshots).saturating_add(checkpoint + checkpoint.max(results)),
        rest: kept.saturating_add(results + if config.keep_checkpoint { checkpoint } else { 0 }),
    }
}

/// An image without compression, which is what one of noise takes.
fn image_bytes(trainer: &Trainer) -> u64 {
    let settings = trainer.pipeline.default_settings();
    3 * settings.height.unsigned_abs() * settings.width.unsigned_abs()
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

fn sum<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> u64 {
    tensors.map(bytes).sum()
}

/// The bytes of a folder's files.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.fold(0, u64::saturating_add)
}

/// The bytes that are free where a folder is or will be, if the file system says.
fn free(folder: &Path) -> Option<u64> {
    let absolute = std::path::absolute(folder).ok()?;
    let there = absolute.ancestors().find(|ancestor| ancestor.exists())?;
    let system = rustix::fs::statvfs(there).ok()?;
    (system.f_blocks > 0).then(|| system.f_bavail.saturating_mul(system.f_frsize))
}

fn text(bytes: u64) -> String {
    match bytes {
        0..WORTH_SAYING => format!("{} MB", bytes.div_ceil(1_000_000)),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    #[test]
    fn what_is_there_already_is_not_needed_again() {
        let need = Need { checkpoint: 10 * GB, peak: 21 * GB, rest: 4 * GB };
        let decide = |there, free| decide(need, there, free, "run".as_ref());
        let text = decide(0, Some(21 * GB)).unwrap().unwrap();
        assert_eq!(text, "run will take up to 21.0 GB while it trains, and 4.0 GB when it is done; 21.0 GB are free");
        let error = decide(0, Some(21 * GB - 1)).unwrap_err().to_string();
        assert!(
            error.starts_with("the run in run needs 21.0 GB more on its disk (a checkpoint has 10.0 GB"),
            "{error}"
        );
        assert!(decide(10 * GB, Some(11 * GB)).unwrap().is_some());
        assert!(decide(10 * GB, Some(11 * GB - 1)).is_err());
        // Nothing to say of little, and nothing to know of a system that does not tell.
        assert_eq!((decide(21 * GB, Some(0)).unwrap(), decide(0, None).unwrap()), (None, None));
    }

    #[test]
    fn sizes_are_of_all_files_below() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/c"), [0; 100]).unwrap();
        fs::write(folder.path().join("d"), [0; 11]).unwrap();
        assert_eq!((size(folder.path()), size(&folder.path().join("none"))), (111, 0));
        // Where it is not there yet, the disk of what is above it counts.
        let disk = free(folder.path()).unwrap();
        assert!(disk > 0 && free(&folder.path().join("x/y")).unwrap().abs_diff(disk) < 1 << 30);
        assert_eq!([text(1), text(GB - 1), text(GB)], ["1 MB", "1000 MB", "1.0 GB"]);
    }
}
