//! Addresses of models: which there are, what they are called in a folder, and what of them may be shown.

use sha2::{Digest as _, Sha256};
use url::Url;

use super::error::DownloadError;
use super::verify::Checksum;
use crate::format::hex;

/// Folders on Hugging Face hold models of one name each: such a file is called after its repository.
const COMMON_NAMES: [&str; 2] = ["model", "pytorch_model"];

/// Where a model lies: `https`, `http`, and `s3` and `gs` where they are built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// Fails for what is no address, and for kinds this program cannot fetch from.
    pub fn parse(text: &str) -> Result<Self, DownloadError> {
        let text = text.trim();
        let url = Url::parse(text).map_err(|_| DownloadError::NoAddress(text.to_owned()))?;
        match url.scheme() {
            "https" | "http" if url.has_host() => Ok(Self(url)),
            "s3" | "gs" if cfg!(feature = "cloud") => Ok(Self(url)),
            "s3" | "gs" => Err(DownloadError::NotBuilt(url.scheme().to_owned())),
            _ => Err(DownloadError::NoAddress(text.to_owned())),
        }
    }

    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The address without what may be secret: name, password, and the query, where signatures stand.
    pub fn shown(&self) -> String {
        shown(&self.0)
    }

    /// Tells addresses apart that are shown alike, without giving their secrets away.
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.0.as_str().as_bytes()))
    }

    /// What the file is called in a folder: harmless on every file system, and never that of an unfinished download.
    pub fn file_name(&self) -> String {
        let segments: Vec<&str> =
            self.0.path_segments().into_iter().flatten().filter(|part| !part.is_empty()).collect();
        let last = safe(segments.last().copied().unwrap_or_default());
        let (stem, ending) = last.split_once('.').unwrap_or((&last, ""));
        match segments.as_slice() {
            [_, repository, "resolve", ..]
                if self.0.host_str() == Some("huggingface.co") && COMMON_NAMES.contains(&stem) =>
            {
                format!("{}.{ending}", safe(repository))
            }
            _ => last,
        }
    }

    /// torchvision's files carry the first digits of their SHA-256: `resnet50-11ad3fa6.pth`.
    pub fn checksum_in_name(&self) -> Option<Checksum> {
        let name = self.0.path_segments()?.next_back()?;
        let digits = name.rsplit_once('-')?.1.split('.').next()?;
        let is_theirs = self.0.host_str() == Some("download.pytorch.org") && digits.len() >= 8;
        let checksum = is_theirs.then(|| Checksum::parse(digits).ok()).flatten()?;
        Some(checksum.said_by("the file's name"))
    }
}

/// See [`Address::shown`].
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for addresses without a host, which have neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

fn safe(segment: &str) -> String {
    let decoded = percent_decoded(segment);
    let is_plain = |c: &char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | ' ');
    let name: String = decoded.chars().map(|c| if is_plain(&c) { c } else { '_' }).take(200).collect();
    let name = name.trim_start_matches('.').trim().to_owned();
    match name.strip_suffix(".part") {
        Some(rest) => format!("{rest}_part"),
        None if name.is_empty() => "model".to_owned(),
        None => name,
    }
}

fn percent_decoded(segment: &str) -> String {
    // A form's value is decoded as a path is, but for the plus sign.
    let pair = format!("n={}", segment.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn files_are_called_after_their_address_and_common_names_after_their_repository() {
        let cases = [
            ("https://a.org/models/food.pth", "food.pth"),
            ("https://a.org/models/food.pth?token=x#y", "food.pth"),
            ("https://a.org/", "model"),
            ("https://a.org/%2e%2e%2Fetc%2Fpasswd", "_etc_passwd"),
            ("https://a.org/my%20model+1.gguf", "my model+1.gguf"),
            ("https://a.org/x.part", "x_part"),
            (
                "https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors",
                "resnet50.a1_in1k.safetensors",
            ),
            ("https://huggingface.co/o/r/resolve/main/food-q8.gguf", "food-q8.gguf"),
        ];
        for (text, name) in cases {
            assert_eq!(address(text).file_name(), name, "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown_but_tell_addresses_apart() {
        let (one, other) = (address("https://me:secret@a.org/x?sig=1"), address("https://me:secret@a.org/x?sig=2"));
        assert_eq!(one.shown(), "https://a.org/x");
        assert_ne!(one.digest(), other.digest());
    }

    #[test]
    fn only_known_kinds_are_addresses() {
        for text in ["food.pth", "ftp://a.org/x", "file:///etc/passwd", "https://", ""] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_digits_in_a_torchvision_name_are_a_checksum() {
        let found = |text: &str| address(text).checksum_in_name().map(|checksum| checksum.digits().to_owned());
        let name = "resnet50-11ad3fa6.pth";
        assert_eq!(found(&format!("https://download.pytorch.org/models/{name}")).as_deref(), Some("11ad3fa6"));
        assert_eq!(found(&format!("https://a.org/models/{name}")), None);
        assert_eq!(found("https://download.pytorch.org/models/food-net.pth"), None);
    }
}
