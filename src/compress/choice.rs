//! Which block gets how many bits: the least error in all that a number of bytes allows.

/// One way to store a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    pub bytes: u64,
    /// What it does to the answers; the unit is the same for all blocks, and errors add up.
    pub error: f64,
}

/// Into so many parts the bytes are divided that can be given out: finer ones would be counted for nothing.
const PARTS: u64 = 4096;

/// For each block the one of its costs, from the fewest bytes to the most, with which the sum of errors is the least that
/// `limit` bytes in all allow; none where even the fewest are too many.
///
/// A knapsack, filled exactly but for bytes being counted in parts.
pub fn choose(costs: &[Vec<Cost>], limit: u64) -> Option<Vec<usize>> {
    let fewest: u64 = costs.iter().filter_map(|costs| costs.first()).map(|cost| cost.bytes).sum();
    let room = limit.checked_sub(fewest)?;
    let part = room.div_ceil(PARTS).max(1);
    let parts = (room / part) as usize;
    // The least error of the blocks so far by the parts that they may take, and with which cost of the last one.
    let mut least = vec![0.0; parts + 1];
    let mut chosen: Vec<Vec<u8>> = Vec::with_capacity(costs.len());
    for costs in costs {
        let more = |cost: &Cost| (cost.bytes - costs[0].bytes).div_ceil(part) as usize;
        let best = |parts: usize| {
            let affordable = costs.iter().enumerate().filter(|(_, cost)| more(cost) <= parts);
            let errors = affordable.map(|(index, cost)| (least[parts - more(cost)] + cost.error, index as u8));
            errors.min_by(|one, other| one.0.total_cmp(&other.0)).unwrap_or_default()
        };
        let (errors, of_block) = (0..=parts).map(best).unzip();
        least = errors;
        chosen.push(of_block);
    }
    let mut left = parts;
    let mut choice = vec![0; costs.len()];
    for block in (0..costs.len()).rev() {
        let index = usize::from(chosen[block][left]);
        left -= (costs[block][index].bytes - costs[block][0].bytes).div_ceil(part) as usize;
        choice[block] = index;
    }
    Some(choice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(pairs: &[(u64, f64)]) -> Vec<Cost> {
        pairs.iter().map(|(bytes, error)| Cost { bytes: *bytes, error: *error }).collect()
    }

    /// The least error of all choices within the limit, each tried.
    fn best(costs: &[Vec<Cost>], limit: u64) -> f64 {
        match costs.split_first() {
            None => 0.0,
            Some((first, rest)) => {
                let with = |cost: &Cost| Some(cost.error + best(rest, limit.checked_sub(cost.bytes)?));
                first.iter().filter_map(with).fold(f64::INFINITY, f64::min)
            }
        }
    }

    #[test]
    fn no_other_choice_within_the_limit_has_less_error() {
        let blocks = [
            costs(&[(10, 5.0), (14, 1.0), (20, 0.5)]),
            costs(&[(100, 6.0), (140, 4.0), (200, 0.1)]),
            costs(&[(50, 0.2), (70, 0.05), (100, 0.0)]),
            costs(&[(3, 0.0), (3, 0.0), (3, 0.0)]),
        ];
        for limit in 163..=330 {
            let choice = choose(&blocks, limit).unwrap();
            let chosen: Vec<Cost> = choice.iter().zip(&blocks).map(|(index, costs)| costs[*index]).collect();
            assert!(chosen.iter().map(|cost| cost.bytes).sum::<u64>() <= limit);
            let error: f64 = chosen.iter().map(|cost| cost.error).sum();
            assert!((error - best(&blocks, limit)).abs() < 1e-12, "{limit}: {error}");
        }
        assert_eq!(choose(&blocks, 162), None);
        assert_eq!(choose(&blocks, u64::MAX / 2).unwrap()[..2], [2, 2]);
    }

    #[test]
    fn bytes_in_millions_are_kept_to() {
        let blocks: Vec<Vec<Cost>> = (1..60u64)
            .map(|block| costs(&[(block * 45_001, block as f64), (block * 85_003, 0.01 * block as f64)]))
            .collect();
        let limit = 120_000_000;
        let choice = choose(&blocks, limit).unwrap();
        let bytes: u64 = choice.iter().zip(&blocks).map(|(index, costs)| costs[*index].bytes).sum();
        assert!(bytes <= limit && bytes > limit - 2_000_000, "{bytes}");
    }
}
