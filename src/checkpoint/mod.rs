//! Opens a checkpoint by its content, lists its tensors, and reads the ones asked for.

mod elements;
mod error;
mod gguf;
mod legacy;
mod names;
mod pickle;
mod plain;
mod pth;
mod reader;
mod rebuild;
mod safetensors;
mod save;
mod source;
mod state_dict;
mod unpickle;
mod write;
mod zip;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use elements::Stored;
use error::{Fault, malformed, refused};
use source::Source;

pub use error::CheckpointError;
pub use gguf::{GgufTensor, GgufType, gguf_bytes, write_gguf};
pub use save::{Unnamed, save_atomically};
pub use write::{Planned, save_safetensors};

/// The ending of a download's name until it is whole: such a file is never opened as a model.
pub const UNFINISHED: &str = "part";

/// The kind of file, found from its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Container {
    #[serde(rename = "pytorch-zip")]
    PyTorchZip,
    #[serde(rename = "pytorch-legacy")]
    PyTorchLegacy,
    Safetensors,
    Gguf,
}

/// How a tensor's elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ElementType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
    /// A block-quantized type of a `.gguf` file, by its name there.
    #[serde(untagged)]
    Quantized(&'static str),
}

impl ElementType {
    /// Bytes of one element; those of a quantized type come in blocks, and count 0 here.
    fn bytes(self) -> u64 {
        match self {
            ElementType::F64 | ElementType::I64 => 8,
            ElementType::F32 | ElementType::I32 => 4,
            ElementType::F16 | ElementType::BF16 | ElementType::I16 => 2,
            ElementType::I8 | ElementType::U8 | ElementType::Bool => 1,
            ElementType::Quantized(_) => 0,
        }
    }
}

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TensorKind {
    /// Part of the network: parameters and buffers.
    Weight,
    /// What training needs to go on: optimizer state. A network is never built from it.
    Optimizer,
    /// Anything else (a second copy such as EMA when the model was taken, random states, …).
    Other,
}

#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// The name inside the state dict, wrappers and prefixes removed.
    pub name: String,
    pub element: ElementType,
    /// Row-major, outermost first (PyTorch's order).
    pub shape: Vec<usize>,
    pub kind: TensorKind,
    /// Bytes of the elements as stored in the file.
    pub bytes: u64,
}

impl TensorInfo {
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A tensor as a file quantized it: for each output a row of blocks, over positions and then inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// `Q8_0`, `Q5_0` or `Q4_0`.
    pub kind: &'static str,
    /// Row after row, each of whole blocks.
    pub bytes: Vec<u8>,
}

/// An open checkpoint: its table of tensors is in memory, their elements are not.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    container: Container,
    files: Vec<Source>,
    tensors: Vec<TensorInfo>,
    /// Position in `tensors` and place in the files of each weight.
    weights: HashMap<String, (usize, Stored)>,
    metadata: BTreeMap<String, serde_json::Value>,
    found_as: String,
}

/// What the reader of a container finds in it. Only weights say where they are stored.
struct Contents {
    container: Container,
    files: Vec<Source>,
    tensors: Vec<(TensorInfo, Option<Stored>)>,
    metadata: BTreeMap<String, serde_json::Value>,
    found_as: String,
}

impl Checkpoint {
    /// Fails for files that are no checkpoint, are damaged, or hold what Galley does not read, and says which.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        if path.extension().is_some_and(|ending| ending == UNFINISHED) {
            let reason = "it is an unfinished download; start the same download again, and it goes on from there";
            return Err(refused(reason).at(path));
        }
        Self::open_unfinished(path)
    }

    /// The same for a download that has arrived and has not been given its name.
    pub fn open_unfinished(path: &Path) -> Result<Self, CheckpointError> {
        Source::open(path).and_then(|source| Self::from_source(path, source)).map_err(|fault| fault.at(path))
    }

    /// The same for bytes that live in the program itself. `name` stands in for the path in messages.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self, CheckpointError> {
        Self::from_bytes(name, bytes)
    }

    /// The same for bytes in memory.
    pub fn from_bytes(name: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self, CheckpointError> {
        let path = Path::new(name);
        Self::from_source(path, Source::Memory(bytes.into())).map_err(|fault| fault.at(path))
    }

    fn from_source(path: &Path, source: Source) -> Result<Self, Fault> {
        let mut contents = contents(path, source)?;
        describe_prefixes(&mut contents);
        let mut weights = HashMap::new();
        let mut tensors = Vec::with_capacity(contents.tensors.len());
        for (info, stored) in contents.tensors {
            if let Some(stored) = stored {
                weights.insert(info.name.clone(), (tensors.len(), stored));
            }
            tensors.push(info);
        }
        let Contents { container, files, metadata, found_as, .. } = contents;
        Ok(Checkpoint { path: path.to_owned(), container, files, tensors, weights, metadata, found_as })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every file that is read: the one opened, and those it names when it is an index. None for bytes in memory.
    pub fn files(&self) -> Vec<&Path> {
        let read = self.files.iter().filter_map(Source::path);
        let index = read.clone().next().filter(|first| *first != self.path).map(|_| self.path());
        index.into_iter().chain(read).collect()
    }

    pub fn container(&self) -> Container {
        self.container
    }

    /// Every tensor: the weights in file order, then the rest.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Plain text values kept beside the tensors: safetensors `__metadata__`, gguf string/number keys, plain strings,
    /// numbers and lists of strings of a PyTorch wrapper (`classes`, `epoch`, `arch`). Lists are JSON arrays.
    pub fn metadata(&self) -> &BTreeMap<String, serde_json::Value> {
        &self.metadata
    }

    /// How the model's tensors were found in the file ("under the key model, prefix module. removed").
    pub fn found_as(&self) -> &str {
        &self.found_as
    }

    /// The elements of the weight `name` as f32, row-major, whatever their type and strides in the file.
    ///
    /// Fails when the file changed since it was opened, and for values that are not finite: a network that holds one
    /// answers nonsense.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let (info, file, stored) = self.weight(name)?;
        let values = match info.element {
            ElementType::Quantized(_) => gguf::dequantize(file, info, stored),
            element => elements::read(file, element, &info.shape, stored),
        };
        let values = values.and_then(|values| refuse_non_finite(values, 0));
        values.map_err(|fault| fault.in_tensor(name).at(&self.path))
    }

    /// Some of the outermost rows of a weight, as [`Self::read_f32`] gives them; `None` where only the whole can be read.
    pub fn read_rows(&self, name: &str, rows: Range<usize>) -> Result<Option<Vec<f32>>, CheckpointError> {
        let (info, file, stored) = self.weight(name)?;
        let ([count, inner @ ..], [stride, ..]) = (&info.shape[..], &stored.strides[..]) else { return Ok(None) };
        if matches!(info.element, ElementType::Quantized(_)) || rows.end > *count {
            return Ok(None);
        }
        let shape = [&[rows.len()], inner].concat();
        let skipped = rows.start as u64 * *stride as u64 * info.element.bytes();
        let stored = Stored { start: stored.start + skipped, ..stored.clone() };
        let values = elements::read(file, info.element, &shape, &stored);
        let first = rows.start * inner.iter().product::<usize>();
        let values = values.and_then(|values| refuse_non_finite(values, first));
        values.map(Some).map_err(|fault| fault.in_tensor(name).at(&self.path))
    }

    /// The weight `name` as it is stored, when that is in [`Blocks`]. Fails as [`Self::read_f32`] does.
    pub fn read_blocks(&self, name: &str) -> Result<Option<Blocks>, CheckpointError> {
        let (info, file, stored) = self.weight(name)?;
        gguf::blocks(file, info, stored).map_err(|fault| fault.in_tensor(name).at(&self.path))
    }

    fn weight(&self, name: &str) -> Result<(&TensorInfo, &Source, &Stored), CheckpointError> {
        let missing = || CheckpointError::Missing { path: self.path.clone(), name: name.to_owned() };
        let (position, stored) = self.weights.get(name).ok_or_else(missing)?;
        let (info, file) = self.tensors.get(*position).zip(self.files.get(stored.file)).ok_or_else(missing)?;
        Ok((info, file, stored))
    }
}

/// Tells the containers apart by their first bytes.
fn contents(path: &Path, source: Source) -> Result<Contents, Fault> {
    let start = source.read(0, source.len().min(512))?;
    match &start[..] {
        [b'P', b'K', 3, 4, ..] => pth::open_zip(source),
        // Before pickles, with whose first byte a length may begin.
        start if safetensors::looks_like(start) => safetensors::open(source),
        [0x80, _, ..] => pth::open_legacy(source),
        start if start.starts_with(gguf::MAGIC) => gguf::open(source),
        start if start.trim_ascii_start().starts_with(b"{") => safetensors::open_index(&source, path),
        start => Err(foreign(start)),
    }
}

/// What a file is that is none of ours, as far as its first bytes tell.
fn foreign(start: &[u8]) -> Fault {
    let text = start.trim_ascii_start().to_ascii_lowercase();
    if start.is_empty() {
        return Fault::Unrecognised("the file is empty".into());
    }
    if start.starts_with(b"version https://git-lfs") {
        return refused(
            "it is a Git LFS pointer, a note in place of the checkpoint; fetch the file itself with: git lfs pull",
        );
    }
    if text.starts_with(b"<!doctype") || text.starts_with(b"<html") {
        return Fault::Unrecognised("it is a web page, as a failed download leaves; download the file itself".into());
    }
    if start.starts_with(b"\x89HDF") {
        return Fault::Unrecognised("it is an HDF5 file, as Keras writes".into());
    }
    Fault::Unrecognised("its content is neither PyTorch, safetensors nor gguf".into())
}

fn describe_prefixes(contents: &mut Contents) {
    let weights = contents.tensors.iter_mut().filter(|(info, _)| info.kind == TensorKind::Weight);
    let mut names: Vec<&mut String> = weights.map(|(info, _)| &mut info.name).collect();
    let removed = names::remove_shared_prefixes(&mut names);
    if let [first, rest @ ..] = &removed[..] {
        let plural = if rest.is_empty() { "prefix" } else { "prefixes" };
        contents.found_as.push_str(&format!(", {plural} {first}"));
        rest.iter().for_each(|prefix| contents.found_as.push_str(&format!(" {prefix}")));
        contents.found_as.push_str(" removed");
    }
}

/// `first` is the number of the first value in its tensor.
fn refuse_non_finite(values: Vec<f32>, first: usize) -> Result<Vec<f32>, Fault> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(position) => {
            let (element, value) = (first + position, values[position]);
            Err(malformed(format!("its element {element} is {value}, not a number to compute with")))
        }
        None => Ok(values),
    }
}
