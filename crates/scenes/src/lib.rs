//! The miniature's world: captioned images without end, composed from a few hundred drawings with alpha.
//!
//! A [`World`] names what there is: nouns with their drawings, colours, places, styles, and the subjects that are kept
//! from training. A [`Scene`] is sampled from a seed, has a caption and is rendered with an [`Album`] of drawings:
//!
//! ```
//! use scenes::{Album, Scene, Split, World};
//!
//! let world = World::miniature();
//! let scene = Scene::sample(&world, 7, Split::Training);
//! let caption = scene.caption(&world);
//! assert!(caption.contains(scene.objects[0].said(&world)));
//!
//! // A program reads the drawings from the folder of the emoji package: Album::open(&world, folder)?
//! let album = Album::placeholder(&world);
//! assert_eq!(scene.render(&world, &album, 128).dimensions(), (128, 128));
//! ```
//!
//! One composition in 32 is held out ([`Split::HeldOut`]): no caption of training has the same things, colours and
//! background together.
//!
//! Invariants: knows nothing of tensors or models; a seed means the same scene and image everywhere; no drawing and no
//! name of a subject is in any scene of [`Split::Training`] or [`Split::HeldOut`].

mod album;
mod animation;
mod background;
mod caption;
mod render;
mod rng;
mod scene;
mod style;
mod world;

pub use album::Album;
pub use animation::poses;
pub use image::RgbImage;
pub use scene::{Background, Object, Placement, Scene, Split};
pub use world::{Noun, Subject, World};
