#![doc = include_str!("../README.md")]
//!
//! ```
//! use remote::Store;
//!
//! # let parent = tempfile::tempdir()?;
//! # let local = parent.path().join("cell.json");
//! # std::fs::write(&local, "{}")?;
//! let url = format!("file://{}/results", parent.path().display()); // or s3://bucket/results
//! let store = Store::open(&url)?;
//! store.upload(&local, "cells/rex/cell.json")?;
//! assert_eq!(store.read("cells/rex/cell.json", 1 << 20)?.as_deref(), Some(&b"{}"[..]));
//! assert!(store.create("done", b"1")? && !store.create("done", b"2")?);
//! # anyhow::Ok(())
//! ```
//!
//! | URL | is | credentials |
//! |---|---|---|
//! | `s3://BUCKET/PATH` | S3, or what speaks it at `AWS_ENDPOINT_URL` | `AWS_ACCESS_KEY_ID` and others, or the machine's own |
//! | `gs://BUCKET/PATH` | Google Cloud Storage | `GOOGLE_APPLICATION_CREDENTIALS`, or the machine's own |
//! | `az://CONTAINER/PATH` | Azure Blob Storage | `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY` and others |
//! | `https://HOST/PATH` | single files to read, or WebDAV | none |
//! | `file:///PATH` | a folder | |
//!
//! Invariants: a file is there as a whole or not at all. Credentials come from the environment alone; a URL that has some is refused,
//! and no message shows any. What a server refuses for the moment is asked again for up to two minutes. A message is one sentence.

mod address;
mod failure;
mod inputs;
mod leases;
mod patience;
mod store;

pub use address::is_url;
pub use inputs::{Bounds, fetch, file_name, is_inside};
pub use leases::Leases;
pub use patience::Patience;
pub use store::{Object, Store, random};
