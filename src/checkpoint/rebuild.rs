//! Recognises tensors among the inert values of a pickle: the calls that PyTorch rebuilds them with.

use std::collections::HashMap;

use super::ElementType;
use super::elements::{count, extent};
use super::error::{Fault, malformed, refused};
use super::pickle::{Id, Pickle, Value};

/// A stride-0 view may hold more elements than its storage; beyond this many it is taken for a trap.
const MAX_EXPANDED_ELEMENTS: usize = 1 << 20;
const MAX_DIMENSIONS: usize = 64;
/// Parameters wrap tensors, and tensor subclasses wrap both.
const MAX_WRAPPING: usize = 4;

/// A tensor as the pickle describes it: not yet compared with the bytes of its storage.
#[derive(Debug, Clone)]
pub(super) struct TensorRef {
    pub(super) storage_key: String,
    pub(super) element: ElementType,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    /// Of the first element within the storage, in elements.
    pub(super) offset: usize,
    /// Of the elements that the tensor spans, from the storage's start.
    pub(super) end_bytes: u64,
}

impl TensorRef {
    pub(super) fn bytes(&self) -> u64 {
        self.shape.iter().fold(self.element.bytes(), |bytes, size| bytes.saturating_mul(*size as u64))
    }

    /// Fails for a large view that repeats the elements of a storage of `storage_bytes`.
    pub(super) fn refuse_expanded(&self, storage_bytes: u64) -> Result<(), Fault> {
        let elements = count(&self.shape)?;
        if elements > MAX_EXPANDED_ELEMENTS && elements as u64 > storage_bytes / self.element.bytes() {
            return Err(refused(format!(
                "its shape {:?} repeats a storage of {storage_bytes} bytes; save a copy of it",
                self.shape
            )));
        }
        Ok(())
    }
}

/// The tensor that `id` stands for; `None` when it is no tensor.
///
/// Fails for tensors of kinds and types that Galley does not read, and for impossible shapes.
pub(super) fn tensor(pickle: &Pickle, mut id: Id) -> Result<Option<TensorRef>, Fault> {
    for _ in 0..MAX_WRAPPING {
        let Some(object) = pickle.object(id) else { return Ok(None) };
        let Some((module, function)) = pickle.global(object.callable) else { return Ok(None) };
        if !module.starts_with("torch") {
            return Ok(None);
        }
        let arguments = pickle.sequence(object.arguments).unwrap_or_default();
        match function {
            "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" => {
                return strided(pickle, function, arguments).map(Some);
            }
            "_rebuild_parameter" | "_rebuild_parameter_with_state" => id = argument(arguments, 0)?,
            "_rebuild_from_type" | "_rebuild_from_type_v2" => match inner_call(pickle, arguments)? {
                Some(call) => return strided(pickle, call.0, call.1).map(Some),
                None => id = argument(pickle.sequence(argument(arguments, 2)?).unwrap_or_default(), 0)?,
            },
            _ if function.starts_with("_rebuild") => {
                let kind = function.trim_start_matches("_rebuild_");
                return Err(refused(format!(
                    "Galley does not read tensors of the kind {kind}; save it as a plain tensor"
                )));
            }
            _ => return Ok(None),
        }
    }
    Err(malformed("tensors are wrapped in one another too often"))
}

/// `(function, type, arguments, state)`: the call inside, when it rebuilds a tensor itself.
fn inner_call<'a>(pickle: &'a Pickle, arguments: &[Id]) -> Result<Option<(&'a str, &'a [Id])>, Fault> {
    let function = pickle.global(argument(arguments, 0)?).map(|(_, function)| function);
    let inner = pickle.sequence(argument(arguments, 2)?);
    Ok(function.zip(inner).filter(|(function, _)| function.starts_with("_rebuild_tensor")))
}

/// True for what [`tensor`] would answer with a tensor or an error.
pub(super) fn is_tensor(pickle: &Pickle, id: Id) -> bool {
    let global = pickle.object(id).and_then(|object| pickle.global(object.callable));
    global.is_some_and(|(module, function)| module.starts_with("torch") && function.starts_with("_rebuild"))
}

fn argument(arguments: &[Id], position: usize) -> Result<Id, Fault> {
    arguments.get(position).copied().ok_or_else(|| malformed("a tensor lacks its description"))
}

/// `(storage, offset, shape, strides, requires_grad, hooks, …)`.
fn strided(pickle: &Pickle, function: &str, arguments: &[Id]) -> Result<TensorRef, Fault> {
    let storage = storage(pickle, argument(arguments, 0)?)?;
    let offset =
        pickle.unsigned(argument(arguments, 1)?).ok_or_else(|| malformed("its storage offset is not a count"))?;
    let shape = sizes(pickle, argument(arguments, 2)?, "shape")?;
    let strides = sizes(pickle, argument(arguments, 3)?, "strides")?;
    if shape.len() != strides.len() || shape.len() > MAX_DIMENSIONS {
        return Err(malformed(format!("its shape {shape:?} and its strides {strides:?} do not fit")));
    }
    let element = match function {
        "_rebuild_tensor_v3" => element_of_dtype(pickle, argument(arguments, 6)?)?,
        _ => storage.element.ok_or_else(|| refused("its storage does not say what type its elements have"))?,
    };
    refuse_lazy_bits(pickle, arguments)?;
    TensorRef::new(storage, element, offset, shape, strides)
}

impl TensorRef {
    fn new(
        storage: Storage,
        element: ElementType,
        offset: u64,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Result<Self, Fault> {
        let impossible = || malformed(format!("its shape {shape:?} with strides {strides:?} fits no storage"));
        let first = offset.checked_add(storage.view_offset).ok_or_else(impossible)?;
        let end_bytes = match extent(&shape, &strides).ok_or_else(impossible)? {
            0 => 0,
            extent => {
                let end = first.checked_add(extent as u64).ok_or_else(impossible)?;
                end.checked_mul(element.bytes()).ok_or_else(impossible)?
            }
        };
        let bytes_of = storage.element.map_or(1, |element| element.bytes());
        let storage_bytes = storage.elements.checked_mul(bytes_of).ok_or_else(impossible)?;
        if end_bytes > storage_bytes {
            return Err(malformed(format!(
                "it needs {end_bytes} bytes of a storage that has {storage_bytes} (shape {shape:?}, strides {strides:?})"
            )));
        }
        let offset = usize::try_from(first).map_err(|_| impossible())?;
        let found = TensorRef { storage_key: storage.key, element, shape, strides, offset, end_bytes };
        found.refuse_expanded(storage_bytes)?;
        Ok(found)
    }
}

struct Storage {
    key: String,
    /// `None` for untyped storages, which count bytes.
    element: Option<ElementType>,
    elements: u64,
    /// Very old files: the storage is itself a view that starts here, in elements.
    view_offset: u64,
}

/// `('storage', class, key, device, elements, view)`.
fn storage(pickle: &Pickle, id: Id) -> Result<Storage, Fault> {
    let unclear = || malformed("its storage is described in an unknown way");
    let Value::Persistent(id) = pickle.get(id) else { return Err(unclear()) };
    let fields = pickle.sequence(*id).ok_or_else(unclear)?;
    let [tag, class, key, _device, elements, view @ ..] = fields else { return Err(unclear()) };
    if pickle.text(*tag) != Some("storage") {
        return Err(unclear());
    }
    let (_, class) = pickle.global(*class).ok_or_else(unclear)?;
    let view_offset = match view.first().and_then(|view| pickle.sequence(*view)) {
        Some([_key, offset, _size]) => pickle.unsigned(*offset).ok_or_else(unclear)?,
        _ => 0,
    };
    Ok(Storage {
        key: storage_key(pickle, *key).ok_or_else(unclear)?,
        element: element_of_storage(class)?,
        elements: pickle.unsigned(*elements).ok_or_else(unclear)?,
        view_offset,
    })
}

/// The size of an element of every storage that the pickle mentions, by key.
pub(super) fn storage_element_bytes(pickle: &Pickle) -> HashMap<String, u64> {
    let described = pickle.values.iter().filter_map(|value| match value {
        Value::Persistent(id) => pickle.sequence(*id),
        _ => None,
    });
    let sizes = described.filter_map(|fields| match fields {
        [_tag, class, key, ..] => {
            Some((storage_key(pickle, *key)?, element_bytes_of_storage(pickle.global(*class)?.1)?))
        }
        _ => None,
    });
    sizes.collect()
}

fn element_bytes_of_storage(class: &str) -> Option<u64> {
    match class {
        "UntypedStorage" | "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => Some(1),
        "QInt32Storage" => Some(4),
        "ComplexFloatStorage" => Some(8),
        "ComplexDoubleStorage" => Some(16),
        other => element_of_storage(other).ok().flatten().map(|element| element.bytes()),
    }
}

pub(super) fn storage_key(pickle: &Pickle, id: Id) -> Option<String> {
    match pickle.get(id) {
        Value::Int(key) => Some(key.to_string()),
        _ => pickle.text(id).map(str::to_owned),
    }
}

fn element_of_storage(class: &str) -> Result<Option<ElementType>, Fault> {
    Ok(Some(match class {
        "DoubleStorage" => ElementType::F64,
        "FloatStorage" => ElementType::F32,
        "HalfStorage" => ElementType::F16,
        "BFloat16Storage" => ElementType::BF16,
        "LongStorage" => ElementType::I64,
        "IntStorage" => ElementType::I32,
        "ShortStorage" => ElementType::I16,
        "CharStorage" => ElementType::I8,
        "ByteStorage" => ElementType::U8,
        "BoolStorage" => ElementType::Bool,
        "UntypedStorage" => return Ok(None),
        other => return Err(unreadable(other.trim_end_matches("Storage"))),
    }))
}

fn element_of_dtype(pickle: &Pickle, id: Id) -> Result<ElementType, Fault> {
    let (_, dtype) = pickle.global(id).ok_or_else(|| malformed("its type is not named"))?;
    Ok(match dtype {
        "float64" => ElementType::F64,
        "float32" => ElementType::F32,
        "float16" => ElementType::F16,
        "bfloat16" => ElementType::BF16,
        "int64" => ElementType::I64,
        "int32" => ElementType::I32,
        "int16" => ElementType::I16,
        "int8" => ElementType::I8,
        "uint8" => ElementType::U8,
        "bool" => ElementType::Bool,
        other => return Err(unreadable(other)),
    })
}

/// The refusal for an element type that no network here is made of.
pub(super) fn unreadable(element: &str) -> Fault {
    refused(format!("Galley does not read elements of the type {element}; convert it to float32 or float16 first"))
}

fn sizes(pickle: &Pickle, id: Id, what: &str) -> Result<Vec<usize>, Fault> {
    let size = |id: &Id| pickle.unsigned(*id).and_then(|size| usize::try_from(size).ok());
    let sizes = pickle.sequence(id).and_then(|members| members.iter().map(size).collect());
    sizes.ok_or_else(|| malformed(format!("its {what} is not a list of counts")))
}

/// Views that PyTorch negates or conjugates when they are used: their stored numbers are not their values.
fn refuse_lazy_bits(pickle: &Pickle, arguments: &[Id]) -> Result<(), Fault> {
    let metadata = arguments.iter().skip(6).filter_map(|id| pickle.entries(*id)).flatten();
    let set = metadata.filter(|(key, value)| {
        matches!(pickle.text(*key), Some("neg" | "conj")) && matches!(pickle.get(*value), Value::Bool(true))
    });
    match set.count() {
        0 => Ok(()),
        _ => Err(refused("it is a lazily negated or conjugated view; save a copy of it")),
    }
}
