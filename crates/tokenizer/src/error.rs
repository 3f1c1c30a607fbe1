use std::io;
use std::path::PathBuf;

/// What can go wrong; each message is a whole sentence that names the file or the token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder or one of its files is not there.
    #[error("{} holds no CLIP tokenizer: {missing} not found; pass the `tokenizer` folder of a diffusers model", folder.display())]
    Missing {
        /// The folder that was to be read.
        folder: PathBuf,
        /// The files that it should hold.
        missing: &'static str,
    },
    /// A file is there but cannot be read.
    #[error("{} cannot be read ({cause}); check the file and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// A file was read but makes no tokenizer.
    #[error("{} is not usable: {reason}; it may be incomplete, so fetch it again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong in it, and where.
        reason: String,
    },
    /// A special token is not in the vocabulary.
    #[error("{} has no token {:?}, which is the {role} of this folder; it is not CLIP's vocabulary or it is incomplete", path.display(), terminal::shortened(token))]
    MissingToken {
        /// The file with the vocabulary.
        path: PathBuf,
        /// `bos_token`, `eos_token`, `unk_token` or `pad_token`.
        role: &'static str,
        /// The token that was looked for.
        token: String,
    },
    /// The name of a new placeholder already has a meaning.
    #[error(
        "the placeholder {token:?} already is the token {id} of this tokenizer; choose another name, such as <my-{token}>"
    )]
    PlaceholderExists {
        /// The name, or for a placeholder of several vectors the name of the vector.
        token: String,
        /// The token that it is now.
        id: i64,
    },
    /// The name of a new placeholder cannot work.
    #[error("{:?} cannot be a placeholder: {reason}", terminal::shortened(token))]
    InvalidPlaceholder {
        /// The name.
        token: String,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// The folder cannot be written.
    #[error("{0}")]
    Write(String),
    /// The tokenizers library refused; no input is known that leads here.
    #[error("the tokenizers library failed; please report the text or the folder that led to it")]
    Backend(#[from] tokenizers::Error),
}

/// The result of this crate's functions.
pub(crate) type Result<T> = std::result::Result<T, Error>;
