//! Work in pieces that stand each for itself, shared out among processes.

use std::str::FromStr;

use anyhow::{Context, Error, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

/// Which of several pieces of work, by options.
#[derive(Args, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[command(next_help_heading = "Sharing options")]
pub struct Share {
    /// Do this cell or subject alone, counted from 0; unset, the task of a Slurm array or of an indexed Kubernetes job
    #[arg(long, value_name = "NUMBER", conflicts_with = "shard")]
    pub index: Option<usize>,
    /// Do every Nth, from the Ith on: 0/4, 1/4, 2/4 and 3/4 are all of them; unset, the node of a SkyPilot cluster
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// With --out at a URL, upload checkpoints there, so that another machine resumes what was interrupted
    ///
    /// One of all of Stable Diffusion's U-Net has 10 GB. Unset, what was interrupted on a machine that is gone starts again.
    #[arg(long)]
    #[serde(default)]
    pub upload_checkpoints: bool,
}

/// One of several parts of all pieces of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which part, from 0.
    pub part: usize,
    /// How many there are.
    pub of: usize,
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = |text: &str| text.parse().ok();
        let parts = text.split_once('/').and_then(|(part, of)| Some((number(part)?, number(of)?)));
        let (part, of) = parts.with_context(|| format!("{text:?} is not I/N, as 0/4"))?;
        ensure!(part < of, "{text} is not one of {of} parts, which are counted from 0");
        Ok(Self { part, of })
    }
}

/// Which of several pieces of work one process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pieces {
    /// All of them.
    All,
    /// One, and who says so.
    One(usize, String),
    /// Every so-manyth.
    Every(Shard),
}

impl Pieces {
    /// What the options say; where they say nothing, what the scheduler says that has started this process, by the variables that
    /// `lookup` finds: the task of an array of Slurm or of an indexed job of Kubernetes is one piece, a node of SkyPilot a shard.
    /// `RANK` and `WORLD_SIZE` are no shard: they belong to one run on several devices.
    ///
    /// # Errors
    /// Names a variable that is no such number.
    pub fn of(share: Share, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let number = |name: &str| -> Result<Option<usize>, Error> {
            let Some(text) = lookup(name) else { return Ok(None) };
            let parsed =
                text.trim().parse().with_context(|| format!("{name} is {text:?}, which is no number of a task"));
            parsed.map(Some)
        };
        if let Some(index) = share.index {
            return Ok(Self::One(index, "--index".to_owned()));
        }
        if let Some(shard) = share.shard {
            return Ok(Self::Every(shard));
        }
        for name in ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"] {
            if let Some(index) = number(name)? {
                return Ok(Self::One(index, name.to_owned()));
            }
        }
        let [rank, nodes] = ["SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"];
        match (number(rank)?, number(nodes)?) {
            (Some(part), Some(of)) => {
                ensure!(part < of, "{rank} is {part} of {nodes} = {of} nodes, which are counted from 0");
                Ok(Self::Every(Shard { part, of }))
            }
            _ => Ok(Self::All),
        }
    }

    /// Whether the piece of a number is among them.
    pub fn has(&self, number: usize) -> bool {
        match self {
            Self::All => true,
            Self::One(index, _) => number == *index,
            Self::Every(Shard { part, of }) => number % of == *part,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_win_over_schedulers_and_ranks_are_no_shard() {
        let part = |index, shard, variables: &[(&str, &str)]| {
            let found =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            Pieces::of(Share { index, shard, ..Share::default() }, &found)
        };
        let slurm = [("SLURM_ARRAY_TASK_ID", "7"), ("SKYPILOT_NODE_RANK", "0"), ("SKYPILOT_NUM_NODES", "2")];
        let shard = Shard { part: 1, of: 3 };
        assert_eq!(part(Some(2), None, &slurm).unwrap(), Pieces::One(2, "--index".to_owned()));
        assert_eq!(part(None, Some(shard), &slurm).unwrap(), Pieces::Every(shard));
        assert_eq!(part(None, None, &slurm).unwrap(), Pieces::One(7, "SLURM_ARRAY_TASK_ID".to_owned()));
        assert_eq!(part(None, None, &slurm[1..]).unwrap(), Pieces::Every(Shard { part: 0, of: 2 }));
        let kubernetes = part(None, None, &[("JOB_COMPLETION_INDEX", "0")]).unwrap();
        assert!(kubernetes.has(0) && !kubernetes.has(1));
        assert_eq!(part(None, None, &[("RANK", "1"), ("WORLD_SIZE", "2")]).unwrap(), Pieces::All);
        let error = part(None, None, &[("SLURM_ARRAY_TASK_ID", "a")]).unwrap_err();
        assert_eq!(format!("{error:#}").split(',').next(), Some("SLURM_ARRAY_TASK_ID is \"a\""));
        assert!(part(None, None, &[("SKYPILOT_NODE_RANK", "2"), ("SKYPILOT_NUM_NODES", "2")]).is_err());
    }

    #[test]
    fn a_shard_is_one_of_its_parts() {
        let shard = |text: &str| text.parse::<Shard>();
        assert_eq!(shard("1/4").unwrap(), Shard { part: 1, of: 4 });
        assert_eq!(shard("4/4").unwrap_err().to_string(), "4/4 is not one of 4 parts, which are counted from 0");
        for text in ["", "1", "a/2", "0/0", "-1/2"] {
            assert!(shard(text).is_err(), "{text}");
        }
    }
}
