//! The phases of a configuration, by number, and what they have trained.

use anyhow::{Context, Result};
use runs::{Group, Phase, TrainConfig};

/// A phase of a configuration by its number, from 0, and its name.
pub(crate) fn phase(config: &TrainConfig, number: usize) -> Result<(&str, &Phase)> {
    let found = config.phases.get_index(number).map(|(name, phase)| (name.as_str(), phase));
    found.with_context(|| format!("there is no phase number {}, but {} phases", number + 1, config.phases.len()))
}

/// The groups that hold all that is trained until the end of a phase, each as far as no larger one holds it.
pub(crate) fn groups_until(config: &TrainConfig, number: usize) -> Vec<Group> {
    let trained: Vec<Group> =
        config.phases.values().take(number + 1).flat_map(|phase| phase.trains.keys().copied()).collect();
    let largest = |group: &Group| !trained.iter().any(|other| other != group && other.covers(*group));
    Group::ALL.into_iter().filter(|group| trained.contains(group)).filter(largest).collect()
}
