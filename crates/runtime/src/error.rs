//! Everything that can be refused, with a stable code for each.

use std::fmt;
use std::io;
use std::path::PathBuf;

use hearsay_proto::CallError;

/// Why a call failed. [`Error::code`] is stable; the text is for people.
#[derive(Debug)]
pub enum Error {
    /// A socket cannot be bound here.
    Bind {
        /// `host:port` as given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// An option is malformed.
    Option {
        /// Path as users write it.
        path: &'static str,
        /// What it must be.
        must: String,
    },
    /// The ring of cluster keys cannot be used or exchanged so.
    Keys(&'static str),
    /// A name that has to resolve does not.
    Resolve {
        /// `host:port` as given.
        name: String,
        /// Why.
        reason: String,
    },
    /// Another member lives under this name.
    NameConflict,
    /// The cluster was stopped before or during the call.
    Stopped,
    /// The state machine failed and was stopped; the process lives on.
    Failed(String),
    /// The store on disk cannot be used, or does not work any more.
    Storage {
        /// The file, or the folder if that is at fault.
        path: PathBuf,
        /// What is wrong with it, as the end of a sentence.
        cause: String,
    },
    /// The store on disk fails while the member runs: its whole message.
    StorageFails(String),
    /// A store on disk was asked for something, and there is none.
    NoStorage,
    /// The system refused a thread or entropy.
    System(io::Error),
    /// The protocol refused the arguments.
    Call(CallError),
}

impl Error {
    /// The stable code; the table is in this crate's README.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Bind { .. } => "ERR_HEARSAY_BIND",
            Error::Option { .. } => "ERR_HEARSAY_OPTION",
            Error::Keys(_) => "ERR_HEARSAY_KEYS",
            Error::Resolve { .. } => "ERR_HEARSAY_RESOLVE",
            Error::NameConflict => "ERR_HEARSAY_NAME_CONFLICT",
            Error::Stopped => "ERR_HEARSAY_STOPPED",
            Error::Failed(_) => "ERR_HEARSAY_INTERNAL",
            Error::Storage { .. } | Error::StorageFails(_) | Error::NoStorage => "ERR_HEARSAY_STORAGE",
            Error::System(_) => "ERR_HEARSAY_SYSTEM",
            Error::Call(call) => match call {
                CallError::Key { .. } | CallError::ReservedKey | CallError::UnknownKey => "ERR_HEARSAY_KEY",
                CallError::Value { .. } | CallError::Payload { .. } => "ERR_HEARSAY_VALUE",
                CallError::Topic { .. } => "ERR_HEARSAY_TOPIC",
                CallError::TooMany { .. } => "ERR_HEARSAY_BUSY",
                CallError::Tags { .. } => "ERR_HEARSAY_TAGS",
                CallError::Name => "ERR_HEARSAY_NAME",
                CallError::StoreFull => "ERR_HEARSAY_STORE_FULL",
                CallError::UnknownMember => "ERR_HEARSAY_UNKNOWN_MEMBER",
                CallError::TooManyObserved { .. } => "ERR_HEARSAY_OBSERVED",
                CallError::Left => "ERR_HEARSAY_STOPPED",
                CallError::Config(_) => "ERR_HEARSAY_OPTION",
            },
        }
    }

    /// Path of the option at fault, as users write it.
    pub fn path(&self) -> Option<&'static str> {
        match self {
            Error::Option { path, .. } => Some(path),
            Error::Bind { .. } => Some("bind"),
            Error::Keys(_) => Some("keys"),
            Error::Storage { .. } | Error::StorageFails(_) | Error::NoStorage => Some("storage.path"),
            Error::Call(CallError::Config(config)) => Some(config.path),
            Error::Call(CallError::Tags { .. }) => Some("tags"),
            Error::Call(CallError::Name) => Some("name"),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Bind { address, source } => write!(f, "cannot bind {address}: {source}"),
            Error::Option { path, must } => write!(f, "{path} must be {must}"),
            Error::Keys(why) => write!(f, "keys: {why}"),
            Error::Resolve { name, reason } => write!(f, "{name} does not resolve: {reason}"),
            Error::NameConflict => f.write_str("another member lives under this name"),
            Error::Stopped => f.write_str("the cluster is stopped"),
            Error::Failed(why) => write!(f, "internal error, the cluster was stopped: {why}"),
            Error::Storage { path, cause } => write!(f, "storage: {} {cause}", path.display()),
            Error::StorageFails(text) => f.write_str(text),
            Error::NoStorage => f.write_str("storage: the cluster was started without it"),
            Error::System(source) => write!(f, "the system refused: {source}"),
            Error::Call(call) => call.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Bind { source, .. } | Error::System(source) => Some(source),
            Error::Call(call) => Some(call),
            _ => None,
        }
    }
}

impl From<CallError> for Error {
    fn from(call: CallError) -> Error {
        Error::Call(call)
    }
}
