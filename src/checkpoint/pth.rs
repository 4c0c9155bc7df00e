//! Reads PyTorch's two containers. Executes no pickle code: only tensors and plain values are accepted.

use std::collections::HashMap;

use super::elements::Stored;
use super::error::{Fault, malformed, refused};
use super::legacy;
use super::rebuild::TensorRef;
use super::source::Source;
use super::state_dict::{Selection, select};
use super::unpickle::load;
use super::zip::Directory;
use super::{Container, Contents, TensorInfo, TensorKind};

/// Where the bytes of storages lie, by key.
pub(super) trait Storages {
    /// First byte and length.
    fn find(&self, key: &str) -> Result<(u64, u64), Fault>;
    fn big_endian(&self) -> bool;
}

/// The zip form: a folder with `data.pkl`, `byteorder` and one entry `data/KEY` per storage.
pub(super) fn open_zip(source: Source) -> Result<Contents, Fault> {
    let directory = Directory::read(&source)?;
    let folder = folder(&directory)?;
    if directory.get(&format!("{folder}constants.pkl")).is_some() {
        return Err(refused(
            "it is a TorchScript archive, a program with its weights; in Python, save the weights alone: \
             torch.save(torch.jit.load(FILE).state_dict(), \"weights.pth\")",
        ));
    }
    let entry = directory.get(&format!("{folder}data.pkl")).ok_or_else(|| malformed("it has no data.pkl"))?;
    let (pickle, _) = load(&source, entry.range(&source)?)?;
    let selection = select(&pickle)?;
    let big_endian = big_endian(&source, &directory, &folder)?;
    let contents = {
        let storages = ZipStorages { source: &source, directory: &directory, folder, big_endian };
        contents(Container::PyTorchZip, selection, &storages)?
    };
    Ok(Contents { files: vec![source], ..contents })
}

/// The folder that everything lies in, with its slash; torch names it after the file.
fn folder(directory: &Directory) -> Result<String, Fault> {
    let mut folders = directory.names().filter_map(|name| name.strip_suffix("data.pkl"));
    let mut folders: Vec<_> =
        folders.by_ref().filter(|folder| folder.is_empty() || folder.find('/') == Some(folder.len() - 1)).collect();
    folders.sort_unstable();
    match folders[..] {
        [folder] => Ok(folder.to_owned()),
        [] => Err(Fault::Unrecognised("it is a zip archive without a data.pkl, so torch.save did not write it".into())),
        _ => Err(malformed("the archive has several data.pkl")),
    }
}

fn big_endian(source: &Source, directory: &Directory, folder: &str) -> Result<bool, Fault> {
    let Some(entry) = directory.get(&format!("{folder}byteorder")) else { return Ok(false) };
    let mut order = [0; 6];
    let range = entry.range(source)?;
    let order = order.get_mut(..entry.bytes.min(6) as usize).unwrap_or_default();
    source.read_exact_at(order, range.start)?;
    match &*order {
        b"little" => Ok(false),
        b"big" => Ok(true),
        _ => Err(malformed("its byte order is neither little nor big")),
    }
}

struct ZipStorages<'a> {
    source: &'a Source,
    directory: &'a Directory,
    folder: String,
    big_endian: bool,
}

impl Storages for ZipStorages<'_> {
    fn find(&self, key: &str) -> Result<(u64, u64), Fault> {
        let entry = self.directory.get(&format!("{}data/{key}", self.folder));
        let range = entry.ok_or_else(|| malformed(format!("the storage {key} is missing")))?.range(self.source)?;
        Ok((range.start, range.end - range.start))
    }

    fn big_endian(&self) -> bool {
        self.big_endian
    }
}

/// The form before PyTorch 1.6: pickles one after the other, then the storages.
pub(super) fn open_legacy(source: Source) -> Result<Contents, Fault> {
    let (pickle, end) = legacy::main_pickle(&source)?;
    let selection = select(&pickle)?;
    let storages = legacy::storages(&source, end, &pickle)?;
    let contents = contents(Container::PyTorchLegacy, selection, &storages)?;
    Ok(Contents { files: vec![source], ..contents })
}

/// Compares every weight with the bytes of its storage. Other tensors are only listed.
fn contents(container: Container, selection: Selection, storages: &impl Storages) -> Result<Contents, Fault> {
    let mut known = HashMap::new();
    let mut tensors = Vec::with_capacity(selection.tensors.len());
    for (name, kind, found) in selection.tensors {
        let stored = match kind {
            TensorKind::Weight => Some(stored(&found, storages, &mut known).map_err(|fault| fault.in_tensor(&name))?),
            _ => None,
        };
        let bytes = found.bytes();
        tensors.push((TensorInfo { name, element: found.element, shape: found.shape, kind, bytes }, stored));
    }
    let found_as = match selection.keys[..] {
        [] => "a bare state dict".to_owned(),
        _ => format!("under the key {}", selection.keys.join(" / ")),
    };
    Ok(Contents { container, files: Vec::new(), tensors, metadata: selection.metadata, found_as })
}

fn stored(
    found: &TensorRef,
    storages: &impl Storages,
    known: &mut HashMap<String, (u64, u64)>,
) -> Result<Stored, Fault> {
    let (start, bytes) = match known.get(&found.storage_key) {
        Some(range) => *range,
        // An empty tensor's storage may be left out.
        None if found.end_bytes == 0 => (0, 0),
        None => {
            let range = storages.find(&found.storage_key)?;
            known.insert(found.storage_key.clone(), range);
            range
        }
    };
    if found.end_bytes > bytes {
        return Err(malformed(format!(
            "it needs {} bytes of the storage {}, which has {bytes}",
            found.end_bytes, found.storage_key
        )));
    }
    // The pickle may have declared a larger storage than there is.
    found.refuse_expanded(bytes)?;
    let offset = if found.end_bytes == 0 { 0 } else { found.offset as u64 * found.element.bytes() };
    Ok(Stored { file: 0, start: start + offset, strides: found.strides.clone(), big_endian: storages.big_endian() })
}
