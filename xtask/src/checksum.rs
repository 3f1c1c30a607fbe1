//! SHA-256 of files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// The SHA-256 of a file's bytes.
pub(crate) fn sha256(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// The same in lower-case hexadecimal, as manifests have it.
pub(crate) fn sha256_hex(path: &Path) -> io::Result<String> {
    Ok(sha256(path)?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The same in URL-safe base64 without padding, as wheels' RECORD files have it.
pub(crate) fn sha256_base64(path: &Path) -> io::Result<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for triple in sha256(path)?.chunks(3) {
        let bits = triple.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - triple.len()));
        for place in 0..=triple.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one-block example of FIPS 180-2; its base64 by coreutils' `basenc --base64url`.
    #[test]
    fn sha256_of_the_standards_example() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(file.path()).unwrap(), hex);
        assert_eq!(sha256_base64(file.path()).unwrap(), "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
    }
}
