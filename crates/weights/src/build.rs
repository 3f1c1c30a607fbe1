//! Building a model from a source, with everything that does not fit in one error.

use std::cell::RefCell;
use std::fmt;

use tch::{Device, Kind};

use crate::Parameters;
use crate::scope::{Problem, Scope, Source, Store, Taken};

/// All the tensors that do not fit a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// Where the tensors come from.
    pub source: String,
    /// Each tensor's name and what is wrong with it, in order of the names.
    pub problems: Vec<(String, Problem)>,
}

/// What training programs leave beside a model's weights: the state of their running average (EMA), and how far they were.
const TRAINING_STATE: [&str; 5] = ["decay", "global_step", "model_ema", "num_updates", "optimization_step"];

/// Whether a tensor belongs to no model, but to what a training program had to remember.
pub fn is_training_state(name: &str) -> bool {
    TRAINING_STATE.into_iter().any(|known| is_at_or_below(name, known))
}

fn is_at_or_below(name: &str, place: &str) -> bool {
    name.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Builds a model with `new`, taking its parameters from `source` as tensors of the dtype and on the device `to`.
///
/// Returns the model together with its parameters by name, which share the model's memory. Tensors that are known to mean
/// nothing to a model are passed over, with a note: those that it ignores, and what training programs leave in files.
///
/// # Errors
/// A [`LoadError`] that lists all missing, unexpected, mis-shaped, mis-typed and repeated tensors, or the error of `new`. Lack of
/// memory is a [`libtorch::Error`] of its own: which tensors it hits says nothing of them.
pub fn build<M>(
    source: &dyn Source,
    to: (Kind, Device),
    new: impl FnOnce(&Scope) -> anyhow::Result<M>,
) -> anyhow::Result<(M, Parameters)> {
    let store = Store { source, to, taken: RefCell::new(Taken::default()) };
    let model = new(&Scope::root(&store));
    let Taken { parameters, used, ignored, mut problems } = store.taken.into_inner();
    let memory = problems.values().find_map(|problem| match problem {
        Problem::Copy(error @ libtorch::Error::OutOfMemory(_)) => Some(error.clone()),
        _ => None,
    });
    if let Some(error) = memory {
        return Err(anyhow::Error::new(error).context(format!("cannot load {}", source.describe())));
    }
    let model = model?;
    let is_ignored =
        |name: &String| is_training_state(name) || ignored.iter().any(|ignored| is_at_or_below(name, ignored));
    let unused = source.names().into_iter().filter(|name| !used.contains(name));
    let (passed_over, unexpected): (Vec<_>, Vec<_>) = unused.partition(is_ignored);
    problems.extend(unexpected.into_iter().map(|name| (name, Problem::Unexpected)));
    if problems.is_empty() {
        let mut notes = source.notes();
        notes.extend(passed_over_note(source, &passed_over));
        return Ok((model, parameters.with_notes(notes)));
    }
    Err(LoadError { source: source.describe(), problems: problems.into_iter().collect() }.into())
}

/// Names a few of them: a text encoder's file may hold the whole image encoder.
fn passed_over_note(source: &dyn Source, names: &[String]) -> Option<String> {
    const MOST: usize = 3;
    let (first, more) = names.split_at(names.len().min(MOST));
    let count = match names.len() {
        0 => return None,
        1 => "a tensor, which is".to_owned(),
        count => format!("{count} tensors, which are"),
    };
    let and_more = if more.is_empty() { "" } else { ", ..." };
    Some(format!(
        "{} holds {count} no part of the model and passed over: {}{and_more}",
        source.describe(),
        first.join(", ")
    ))
}

impl std::error::Error for LoadError {}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.problems.len() == 1 { "tensor does" } else { "tensors do" };
        write!(f, "{} {plural} not fit the model's config in {}:", self.problems.len(), self.source)?;
        let (missing, rest): (Vec<_>, Vec<_>) = self.problems.iter().partition(|(_, p)| *p == Problem::Missing);
        let (unexpected, wrong): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(_, p)| *p == Problem::Unexpected);
        for (heading, group) in [("missing", missing), ("unexpected", unexpected)] {
            if !group.is_empty() {
                let names: Vec<&str> = group.iter().map(|(name, _)| name.as_str()).collect();
                write!(f, "\n  {heading} ({}): {}", names.len(), names.join(", "))?;
            }
        }
        for (name, problem) in wrong {
            write!(f, "\n  {name} {problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;
    use crate::Init;

    /// A source that has run out of memory after its first tensor.
    struct Full;

    impl Source for Full {
        fn describe(&self) -> String {
            "full.safetensors".to_owned()
        }

        fn names(&self) -> Vec<String> {
            vec!["0".to_owned()]
        }

        fn contains(&self, _: &str) -> bool {
            true
        }

        fn fetch(&self, name: &str, shape: &[i64], _: Init, to: (Kind, Device)) -> Result<Tensor, Problem> {
            match name {
                "0" => Ok(Tensor::zeros(shape, to)),
                "1" => Err(Problem::Missing),
                _ => Err(Problem::Copy(libtorch::Error::OutOfMemory("you tried to allocate 8 bytes".to_owned()))),
            }
        }
    }

    #[test]
    fn lack_of_memory_is_one_sentence_however_many_tensors_it_hits() {
        let model = |vs: &Scope| {
            (0..700).for_each(|i| drop(vs.get(&i.to_string(), &[2], Init::Const(0.0))));
            Ok(())
        };
        let error = build(&Full, (Kind::Float, Device::Cpu), model).unwrap_err();
        let expected = "cannot load full.safetensors: out of memory: you tried to allocate 8 bytes";
        assert_eq!(format!("{error:#}"), expected);
        assert!(matches!(error.downcast_ref(), Some(libtorch::Error::OutOfMemory(_))));
    }
}
