//! URLs, and the store that each is of.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, ObjectStore, ObjectStoreScheme as Scheme, RetryConfig,
};
use url::Url;

use crate::patience::Patience;

/// Whether this is a URL and no path.
pub fn is_url(path: &Path) -> bool {
    let scheme = path.to_str().and_then(|text| Some(text.split_once("://")?.0));
    scheme.is_some_and(|scheme| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// A URL that has been understood.
pub(crate) struct Address {
    pub(crate) url: Url,
    pub(crate) scheme: Scheme,
    pub(crate) path: object_store::path::Path,
}

impl Address {
    /// # Errors
    /// When it is of no kind that is known, or has credentials in it, which are not repeated.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut url = Url::parse(text).ok().context("a URL is not understood: write it as s3://BUCKET/PATH")?;
        let secret = url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
            // Azure has the container there.
            || !url.username().is_empty() && !url.scheme().starts_with("abfs");
        if secret {
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            bail!(
                "{url} was given with something before @ or after ? or #: leave it out, credentials are read from the environment"
            );
        }
        let (scheme, path) = Scheme::parse(&url).ok().with_context(|| {
            format!("{url} is no URL of results: there are s3://, gs://, az://, https:// and file:/// with a path")
        })?;
        ensure!(scheme != Scheme::Memory, "{url} is forgotten with the process: give a file:/// or a bucket");
        Ok(Self { url, scheme, path })
    }

    /// # Errors
    /// When the environment says something that cannot be used.
    pub(crate) fn connect(&self, patience: Patience) -> object_store::Result<Box<dyn ObjectStore>> {
        // Several of TLS's providers could be in one program; this is the one that is.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(200),
                max_backoff: Duration::from_secs(8),
                base: 2.0,
            },
            max_retries: patience.retries,
            retry_timeout: patience.total,
        };
        // A large part may take long, an answer that has begun must go on.
        let answer = format!("{} ms", patience.answer.as_millis());
        let client = [
            (ClientConfigKey::Timeout, "1 day".to_owned()),
            (ClientConfigKey::ReadTimeout, answer),
            (ClientConfigKey::ConnectTimeout, format!("{} ms", patience.answer.as_millis().min(5000))),
        ];
        let url = self.url.as_str();
        Ok(match self.scheme {
            Scheme::AmazonS3 => {
                let from_env = AmazonS3Builder::from_env().with_url(url).with_retry(retry);
                let set =
                    |builder: AmazonS3Builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(key), value);
                let builder = client.into_iter().fold(from_env, set);
                // Who names an endpoint without TLS means it, as for other programs.
                let plain = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
                    .iter()
                    .find_map(|name| std::env::var(name).ok())
                    .is_some_and(|endpoint| endpoint.starts_with("http://"));
                Box::new(if plain { builder.with_allow_http(true) } else { builder }.build()?)
            }
            Scheme::GoogleCloudStorage => {
                let from_env = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retry);
                let set = |builder: GoogleCloudStorageBuilder, (key, value)| {
                    builder.with_config(GoogleConfigKey::Client(key), value)
                };
                Box::new(client.into_iter().fold(from_env, set).build()?)
            }
            Scheme::MicrosoftAzure => {
                let from_env = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retry);
                let set = |builder: MicrosoftAzureBuilder, (key, value)| {
                    builder.with_config(AzureConfigKey::Client(key), value)
                };
                Box::new(client.into_iter().fold(from_env, set).build()?)
            }
            Scheme::Http => {
                let host = &self.url[..url::Position::BeforePath];
                let options = client
                    .into_iter()
                    .fold(ClientOptions::new(), |options, (key, value)| options.with_config(key, value));
                let options = options.with_allow_http(true);
                Box::new(HttpBuilder::new().with_url(host).with_client_options(options).with_retry(retry).build()?)
            }
            _ => Box::new(LocalFileSystem::new().with_fsync(true)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        for url in ["s3://b/x", "file:///x", "http://h:1/x", "nothing+known://x"] {
            assert!(is_url(Path::new(url)), "{url}");
        }
        for path in ["s3:/b", "/x://y", "a b://c", "", "://x", "runs/x", "C:\\x"] {
            assert!(!is_url(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn credentials_in_a_url_are_refused_and_not_repeated() {
        for url in ["https://me:s3cr3t@h/x", "https://h/x?sig=s3cr3t", "s3://s3cr3t@b/x", "https://h/x#s3cr3t"] {
            let error = format!("{:#}", Address::parse(url).err().map(|error| error.to_string()).unwrap_or_default());
            assert!(
                error.contains("credentials are read from the environment") && !error.contains("s3cr3t"),
                "{error}"
            );
        }
        for url in ["ftp://h/x", "s3:///x", "memory:///x", "x"] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
        assert!(Address::parse("abfs://container@account.dfs.core.windows.net/x").is_ok());
    }
}
