//! Tensor names as the network knows them: prefixes that training tools put before every name are removed.

/// `DataParallel`, `torch.compile`, and the attribute that Lightning modules and the like keep the network under.
const PREFIXES: [&str; 6] = ["module.", "_orig_mod.", "model.", "backbone.", "net.", "network."];

/// `AveragedModel`'s own counter, which lies beside `module.…` and belongs to no network.
pub(super) const AVERAGING_COUNTER: &str = "n_averaged";

/// Removes the prefixes that every name has, and says which.
pub(super) fn remove_shared_prefixes(names: &mut [&mut String]) -> Vec<&'static str> {
    let mut removed = Vec::new();
    while let Some(prefix) = PREFIXES.into_iter().find(|prefix| shared(names, prefix)) {
        for name in names.iter_mut().filter(|name| *name.as_str() != *AVERAGING_COUNTER) {
            name.drain(..prefix.len());
        }
        removed.push(prefix);
    }
    removed
}

fn shared(names: &[&mut String], prefix: &str) -> bool {
    let mut inner = names.iter().filter(|name| name.as_str() != AVERAGING_COUNTER).peekable();
    inner.peek().is_some() && inner.all(|name| name.len() > prefix.len() && name.starts_with(prefix))
}
