//! Where parameters come from, and how a model asks for them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::Div;

use libtorch::Weight;
use tch::{Device, Kind, Tensor};

use crate::Parameters;

/// Anything that parameters can be taken from: files, tensors in memory, a random initialisation.
pub trait Source {
    /// Where this is, for error messages.
    fn describe(&self) -> String;

    /// All names there are; empty for a source that makes what it is asked for.
    fn names(&self) -> Vec<String>;

    /// What the user should know of where the tensors come from.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether there is a tensor called `name`.
    fn contains(&self, name: &str) -> bool;

    /// A new tensor for the parameter `name` of `shape`, of the dtype and on the device `to`. `init` matters only to
    /// sources that make new values.
    ///
    /// # Errors
    /// What is wrong with the tensor of that name.
    fn fetch(&self, name: &str, shape: &[i64], init: Init, to: (Kind, Device)) -> Result<Tensor, Problem>;
}

/// How a new parameter starts; PyTorch's defaults for the layers that use them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// One value everywhere.
    Const(f64),
    /// Normal numbers of mean zero and this standard deviation.
    Normal(f64),
    /// Uniform numbers in ±1/√`fan_in`, as PyTorch's `Linear` and convolutions start (weights and biases).
    FanIn(i64),
}

/// What can be wrong with one tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is not there.
    #[error("missing")]
    Missing,
    /// It is there, but the model has no such parameter.
    #[error("unexpected")]
    Unexpected,
    /// It has another shape than the model.
    #[error("has shape {found:?}, the model expects {expected:?}")]
    Shape {
        /// The shape in the source.
        found: Vec<i64>,
        /// The shape in the model.
        expected: Vec<i64>,
    },
    /// It has a type that cannot become the model's.
    #[error("has type {found}, which cannot become {expected:?}")]
    Type {
        /// The type in the source.
        found: String,
        /// The model's.
        expected: Kind,
    },
    /// Two parameters of the model have this name.
    #[error("is asked for twice by the model")]
    Repeated,
    /// LibTorch could not copy it.
    #[error(transparent)]
    Copy(libtorch::Error),
}

/// Named tensors in memory.
pub type Tensors = BTreeMap<String, Tensor>;

impl Source for Tensors {
    fn describe(&self) -> String {
        "the given tensors".to_owned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }

    fn contains(&self, name: &str) -> bool {
        self.contains_key(name)
    }

    fn fetch(&self, name: &str, shape: &[i64], _: Init, to: (Kind, Device)) -> Result<Tensor, Problem> {
        let tensor = self.get(name).ok_or(Problem::Missing)?;
        if tensor.size() != shape {
            return Err(Problem::Shape { found: tensor.size(), expected: shape.to_owned() });
        }
        libtorch::catch(|| tensor.detach().to_device_(to.1, to.0, false, true)).map_err(Problem::Copy)
    }
}

/// A place in a model's tree of parameters, such as `down_blocks.0.resnets.1`.
///
/// `vs / "resnets" / 1` goes down; [`Scope::get`] takes a parameter. A parameter that is missing, wrong or asked for twice is
/// remembered, and [`crate::build`] reports all of them together; until then a stand-in of the right shape is used.
#[derive(Clone)]
pub struct Scope<'a> {
    store: &'a Store<'a>,
    prefix: String,
}

pub(crate) struct Store<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) to: (Kind, Device),
    pub(crate) taken: RefCell<Taken>,
}

#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) parameters: Parameters,
    /// The names in the source that were used.
    pub(crate) used: BTreeSet<String>,
    /// The names that were declared to be of no interest; they stand for all below them too.
    pub(crate) ignored: BTreeSet<String>,
    pub(crate) problems: BTreeMap<String, Problem>,
}

impl<'a> Scope<'a> {
    pub(crate) fn root(store: &'a Store<'a>) -> Self {
        Self { store, prefix: String::new() }
    }

    /// The parameter `name` of `shape` below this place.
    pub fn get(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        self.get_any(&[name], shape, init)
    }

    /// The parameter `weight`, that of a layer, which [`Parameters::frozen`] can keep packed.
    pub fn weight(&self, shape: &[i64], init: Init) -> Weight {
        self.weight_any(&["weight"], shape, init)
    }

    /// The same for a weight that has one of several names, as in [`Scope::get_any`].
    pub fn weight_any(&self, names: &[&str], shape: &[i64], init: Init) -> Weight {
        let weight = Weight::new(self.get_any(names, shape, init));
        self.store.taken.borrow_mut().parameters.insert_weight(weight.clone());
        weight
    }

    /// The parameter of `shape` that has one of `names`, as older files call some otherwise: the first name that the source
    /// has. It is known, and saved, under the first of all.
    pub fn get_any(&self, names: &[&str], shape: &[i64], init: Init) -> Tensor {
        let name = self.path(names[0]);
        let found = names.iter().map(|name| self.path(name)).find(|name| self.store.source.contains(name));
        let found = found.unwrap_or_else(|| name.clone());
        let mut taken = self.store.taken.borrow_mut();
        let first = taken.used.insert(found.clone()) && taken.parameters.get(&name).is_none();
        let fetched =
            if first { self.store.source.fetch(&found, shape, init, self.store.to) } else { Err(Problem::Repeated) };
        let tensor = fetched.unwrap_or_else(|problem| {
            taken.problems.insert(found, problem);
            Tensor::zeros([0i64; 0], self.store.to).expand(shape, false)
        });
        taken.parameters.insert(name, tensor.shallow_clone());
        tensor
    }

    /// Whether the source has a tensor of this name below this place.
    pub fn contains(&self, name: &str) -> bool {
        self.store.source.contains(&self.path(name))
    }

    /// Declares that files may have a tensor of this name, or tensors below it, which the model does not need. Those
    /// that are there are named in [`Parameters::notes`].
    pub fn ignore(&self, name: &str) {
        self.store.taken.borrow_mut().ignored.insert(self.path(name));
    }

    /// The full name of this place, empty for the whole model's.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The full name of `name` at this place.
    pub fn path(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

impl<'a, T: Display> Div<T> for &Scope<'a> {
    type Output = Scope<'a>;

    fn div(self, name: T) -> Scope<'a> {
        Scope { store: self.store, prefix: self.path(&name.to_string()) }
    }
}

impl<'a, T: Display> Div<T> for Scope<'a> {
    type Output = Scope<'a>;

    fn div(self, name: T) -> Scope<'a> {
        &self / name
    }
}
