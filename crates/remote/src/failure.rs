//! What a store says, in a sentence without credentials.

use std::error::Error as _;

use anyhow::{Error, anyhow};
use object_store::client::{HttpError, HttpErrorKind};

/// The most of a server's or the system's own words that is repeated.
const LONGEST: usize = 200;

/// Why something failed. `what` is what was to be done: "cannot upload x to s3://b/y".
pub(crate) fn failure(what: &str, error: &object_store::Error) -> Error {
    anyhow!("{what}: {}", reason(error))
}

fn reason(error: &object_store::Error) -> String {
    use object_store::Error as Store;
    let all = chain(error);
    // Where no key is given, the crate asks the machine for one.
    if all.contains("169.254.169.254") || all.contains("metadata.google.internal") {
        return "the environment has no credentials (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS or \
                AZURE_STORAGE_ACCOUNT_NAME with its key), nor has this machine"
            .to_owned();
    }
    let answer = answer(&all);
    match error {
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
            format!("the server does not accept the credentials of the environment for it{}", bracketed(answer))
        }
        Store::NotFound { .. } => format!("there is no such bucket or file{}", bracketed(answer)),
        Store::AlreadyExists { .. } | Store::Precondition { .. } => format!("it is there already{}", bracketed(answer)),
        Store::NotSupported { .. } | Store::NotImplemented { .. } => "the server cannot do that".to_owned(),
        _ => match (answer, kind(error)) {
            (Some(answer), _) => format!("the server answers {answer}"),
            (None, Some(HttpErrorKind::Connect)) => "no connection to the server".to_owned(),
            (None, Some(HttpErrorKind::Timeout)) => "the server does not answer".to_owned(),
            (None, Some(HttpErrorKind::Interrupted)) => "the connection was cut".to_owned(),
            _ => innermost(error),
        },
    }
}

fn bracketed(answer: Option<String>) -> String {
    answer.map(|answer| format!(" ({answer})")).unwrap_or_default()
}

/// All messages, for the crate's own error of a failed request has no public type.
fn chain(error: &object_store::Error) -> String {
    let mut all = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        all += "\n";
        all += &error.to_string();
        source = error.source();
    }
    all
}

/// What the server has answered: its status, and the name of the error where there is one. Its longer words may quote the request.
fn answer(all: &str) -> Option<String> {
    let (_, after) = all.split_once("status code: ")?;
    let status: String = after.chars().take_while(char::is_ascii_digit).collect();
    let code = after.split_once("<Code>").and_then(|(_, code)| Some(code.split_once("</Code>")?.0));
    let code = code.filter(|code| code.len() < 60 && code.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    Some(code.map_or(format!("HTTP {status}"), |code| format!("HTTP {status}, {code}")))
}

fn kind(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        source = error.source();
    }
    None
}

/// Whether an answer was lost or broke off, which the crate does not ask for again where it has begun.
pub(crate) fn is_cut(error: &object_store::Error) -> bool {
    matches!(kind(error), Some(HttpErrorKind::Interrupted | HttpErrorKind::Decode | HttpErrorKind::Timeout))
}

/// The last cause, without what could be a signature in a URL.
fn innermost(error: &object_store::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let text = last.to_string();
    let words = text.split_whitespace().map(|word| word.split_once('?').map_or(word, |(url, _)| url));
    let text = words.collect::<Vec<_>>().join(" ");
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_code_alone() {
        let all = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code>\
                   <AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        assert_eq!(answer(all).as_deref(), Some("HTTP 403, SignatureDoesNotMatch"));
        assert_eq!(answer("status code: 507 x: <Code>a b</Code>").as_deref(), Some("HTTP 507"));
        assert_eq!(answer("nothing"), None);
    }

    #[test]
    fn no_query_is_repeated() {
        let error = object_store::Error::Generic { store: "x", source: "bad https://h/x?sig=secret here".into() };
        assert_eq!(failure("cannot", &error).to_string(), "cannot: bad https://h/x here");
    }
}
