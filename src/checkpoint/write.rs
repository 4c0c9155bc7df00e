//! Writes `.safetensors` files, one tensor in memory at a time.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::save_atomically;

/// What a file shall hold under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub name: String,
    /// Row-major, outermost first.
    pub shape: Vec<usize>,
}

/// Writes tensors of f32 in the order of `tensors`; `values` gives the elements of the one with that index.
///
/// As [`save_atomically`]: `path` holds the whole new file or what it held before.
pub fn save_safetensors<E: From<io::Error>>(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[Planned],
    mut values: impl FnMut(usize) -> Result<Vec<f32>, E>,
) -> Result<(), E> {
    save_atomically(path, |writer| {
        let header = header(metadata, tensors);
        writer.write_all(&(header.len() as u64).to_le_bytes())?;
        writer.write_all(&header)?;
        for (index, tensor) in tensors.iter().enumerate() {
            let values = values(index)?;
            if values.len() != tensor.shape.iter().product::<usize>() {
                let text = format!("{} values for {} of shape {:?}", values.len(), tensor.name, tensor.shape);
                return Err(io::Error::other(text).into());
            }
            for chunk in values.chunks(1 << 14) {
                let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
                writer.write_all(&bytes)?;
            }
        }
        Ok(())
    })
}

/// The table of contents: JSON, filled up with spaces so that tensors begin at a multiple of eight bytes.
fn header(metadata: &BTreeMap<String, String>, tensors: &[Planned]) -> Vec<u8> {
    let mut table = Map::new();
    table.insert("__metadata__".to_owned(), json!(metadata));
    let mut end = 0;
    for Planned { name, shape } in tensors {
        let start = end;
        end += size_of::<f32>() * shape.iter().product::<usize>();
        table.insert(name.clone(), json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
    }
    let mut header = Value::Object(table).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, CheckpointError, TensorKind};

    #[test]
    fn what_is_written_reads_back() -> Result<(), CheckpointError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let planned = |name: &str, shape: &[usize]| Planned { name: name.to_owned(), shape: shape.to_vec() };
        let tensors = [
            planned("b.weight", &[2, 3]),
            planned("a", &[]),
            planned("none", &[0, 4]),
            planned("galley.moments.a", &[2]),
        ];
        let values = [vec![1.0, -2.5, 3e-9, 4.0, 5.0, 6e30], vec![7.0], vec![], vec![8.0, 9.0]];
        let metadata = BTreeMap::from([("labels".to_owned(), r#"["a \"b\"", "ü"]"#.to_owned())]);
        save_safetensors::<io::Error>(&path, &metadata, &tensors, |index| Ok(values[index].clone())).unwrap();
        let checkpoint = Checkpoint::open(&path)?;
        assert_eq!(checkpoint.metadata()["labels"], metadata["labels"]);
        for (tensor, values) in tensors.iter().zip(&values) {
            let info = checkpoint.tensors().iter().find(|info| info.name == tensor.name).unwrap();
            assert_eq!(info.shape, tensor.shape);
            let is_state = tensor.name.starts_with("galley.");
            assert_eq!(info.kind, if is_state { TensorKind::Optimizer } else { TensorKind::Weight });
            assert_eq!(&checkpoint.read_f32(&tensor.name)?, values);
        }
        Ok(())
    }

    #[test]
    fn a_header_of_any_length_is_known_for_what_it_is() -> Result<(), CheckpointError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let tensors = [Planned { name: "a".to_owned(), shape: vec![1] }];
        let mut first_bytes = std::collections::BTreeSet::new();
        for length in 0..264 {
            let metadata = BTreeMap::from([("note".to_owned(), "x".repeat(length))]);
            save_safetensors::<io::Error>(&path, &metadata, &tensors, |_| Ok(vec![4.0])).unwrap();
            first_bytes.insert(std::fs::read(&path).unwrap()[0]);
            assert_eq!(Checkpoint::open(&path)?.read_f32("a")?, [4.0]);
        }
        // A pickle begins so.
        assert!(first_bytes.contains(&0x80));
        Ok(())
    }

    #[test]
    fn a_tensor_of_another_size_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let tensors = [Planned { name: "a".to_owned(), shape: vec![3] }];
        let saved = save_safetensors::<io::Error>(&path, &BTreeMap::new(), &tensors, |_| Ok(vec![0.0; 2]));
        assert!(saved.unwrap_err().to_string().contains("2 values for a"));
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
