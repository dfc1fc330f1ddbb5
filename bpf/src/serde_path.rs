//! Paths in JSON, for `#[serde(with = "bpf::serde_path")]`.
//!
//! JSON strings are text, but a path is bytes. A path that is valid UTF-8 becomes a string. Any other path becomes
//! `{"hex": "2f61ff"}`. So no path is lost or mistaken for another.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text<'a> {
    Utf8(std::borrow::Cow<'a, str>),
    Bytes { hex: String },
}

/// Serializes a path.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    match path.to_str() {
        Some(text) => Text::Utf8(text.into()),
        None => Text::Bytes { hex: hex::encode(path.as_os_str().as_bytes()) },
    }
    .serialize(serializer)
}

/// Deserializes a path that [`serialize`] wrote.
///
/// # Errors
/// When it is neither a string nor an object with an even number of hexadecimal digits.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    match Text::deserialize(deserializer)? {
        Text::Utf8(text) => Ok(PathBuf::from(text.into_owned())),
        Text::Bytes { hex } => hex::decode(hex)
            .map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
            .map_err(|_| serde::de::Error::custom("a path's 'hex' is not hexadecimal bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Holder(#[serde(with = "super")] PathBuf);

    fn there_and_back(bytes: &[u8]) -> (String, Vec<u8>) {
        let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
        let json = serde_json::to_string(&Holder(path)).unwrap();
        let Holder(back) = serde_json::from_str(&json).unwrap();
        (json, back.into_os_string().into_vec())
    }

    #[test]
    fn utf8_is_written_as_it_is() {
        let odd = "/a b/\"q\"\n/system\\x2dd.slice".as_bytes();
        let (json, back) = there_and_back(odd);
        assert_eq!(json, r#""/a b/\"q\"\n/system\\x2dd.slice""#);
        assert_eq!(back, odd);
    }

    #[test]
    fn other_bytes_come_back_whole() {
        let (json, back) = there_and_back(b"/a\xff");
        assert_eq!(json, r#"{"hex":"2f61ff"}"#);
        assert_eq!(back, b"/a\xff");
    }

    #[test]
    fn what_is_not_hexadecimal_is_an_error() {
        for bad in ["\"0\"", "\"0g\"", "\"é0\""] {
            assert!(
                serde_json::from_str::<Holder>(&format!("{{\"hex\":{bad}}}")).is_err(),
                "{bad}"
            );
        }
    }
}
