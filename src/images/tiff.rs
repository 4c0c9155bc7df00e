//! A TIFF's first directory, looked at before a decoder trusts it.

use std::io::{BufRead, Seek, SeekFrom};

use super::ImageError;

/// Tags of TIFF 6.0, its supplements, and the DNG specification.
const KIND_OF_PICTURE: u64 = 0x00FE;
const FURTHER_DIRECTORIES: u64 = 0x014A;
const DNG_VERSION: u64 = 0xC612;

/// What the first directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Picture,
    /// A camera's raw file: the picture that an ordinary decoder would find is a thumbnail, or no picture at all.
    Raw,
}

/// Checks that no entry of the first directory has more values than the file has bytes, as decoders allocate by that
/// number ahead of any limit, and says what the file holds. The reader is back at the start.
pub fn inspect<R: BufRead + Seek>(reader: &mut R, bytes: u64) -> Result<Content, ImageError> {
    let mut head = [0; 16];
    let length = (bytes as usize).min(head.len());
    reader.read_exact(&mut head[..length])?;
    let is_little_endian = head[0] == b'I';
    let number = |bytes: &[u8]| {
        let join = |number, byte: &u8| number << 8 | u64::from(*byte);
        if is_little_endian { bytes.iter().rev().fold(0, join) } else { bytes.iter().fold(0, join) }
    };
    let is_big = number(&head[2..4]) == 43;
    let (offset, count_bytes, entry_bytes) =
        if is_big { (number(&head[8..16]), 8, 20) } else { (number(&head[4..8]), 2, 12) };
    reader.seek(SeekFrom::Start(offset))?;
    let mut count = vec![0; count_bytes];
    reader.read_exact(&mut count)?;
    let mut entry = vec![0; entry_bytes];
    let (mut is_thumbnail, mut has_further, mut is_dng) = (false, false, false);
    for _ in 0..number(&count) {
        reader.read_exact(&mut entry)?;
        let value_at = entry_bytes / 2 + 2;
        if number(&entry[4..value_at]) > bytes {
            return Err(ImageError::damaged("an entry of the TIFF has more values than the file has bytes"));
        }
        match number(&entry[..2]) {
            KIND_OF_PICTURE => is_thumbnail = number(&entry[value_at..value_at + 4]) & 1 == 1,
            FURTHER_DIRECTORIES => has_further = true,
            DNG_VERSION => is_dng = true,
            _ => {}
        }
    }
    reader.rewind()?;
    Ok(if is_dng || is_thumbnail && has_further { Content::Raw } else { Content::Picture })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A TIFF of no more than a directory with these tags, each of one number.
    fn file(tags: &[(u16, u32)], big_endian: bool) -> Vec<u8> {
        let two = |number: u16| if big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
        let four = |number: u32| if big_endian { number.to_be_bytes() } else { number.to_le_bytes() };
        let mut file = if big_endian { b"MM".to_vec() } else { b"II".to_vec() };
        file.extend(two(42));
        file.extend(four(8));
        file.extend(two(tags.len() as u16));
        for (tag, value) in tags {
            file.extend([two(*tag), two(4)].concat());
            file.extend([four(1), four(*value)].concat());
        }
        file
    }

    #[test]
    fn raw_files_of_cameras_are_known_by_their_directory() {
        let content = |tags: &[(u16, u32)]| {
            let [little, big] = [false, true].map(|big| {
                let file = file(tags, big);
                inspect(&mut Cursor::new(&file), file.len() as u64).unwrap()
            });
            assert_eq!(little, big);
            little
        };
        let width = (0x0100, 60);
        assert_eq!(content(&[width]), Content::Picture);
        assert_eq!(content(&[width, (0xC612, 1)]), Content::Raw);
        assert_eq!(content(&[(0x00FE, 1), width, (0x014A, 99)]), Content::Raw);
        // A picture with reduced ones beside it, and a scan that calls itself reduced.
        assert_eq!(content(&[(0x00FE, 0), width, (0x014A, 99)]), Content::Picture);
        assert_eq!(content(&[(0x00FE, 1), width]), Content::Picture);
    }

    #[test]
    fn a_directory_that_is_cut_short_or_lies_is_an_error() {
        let whole = file(&[(0x0100, 60), (0x0101, 40)], false);
        for length in 0..whole.len() {
            assert!(inspect(&mut Cursor::new(&whole[..length]), length as u64).is_err(), "{length}");
        }
        let mut lying = whole;
        lying[14..18].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(inspect(&mut Cursor::new(&lying), lying.len() as u64).unwrap_err().to_string().contains("more values"));
    }
}
