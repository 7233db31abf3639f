//! Which contexts share a code.

use alloc::vec;
use alloc::vec::Vec;

use rayon::prelude::*;

use crate::encoding::packed::recent::SYMBOLS;
use crate::writer::{EncodeError, narrow};

/// Rounds in which contexts may move to a better cluster.
const ROUNDS: usize = 6;

/// The counts of the symbols that occur in a context: symbol and count.
pub(crate) type Histogram = Vec<(u16, u32)>;

struct Cluster {
    counts: Vec<u32>,
    total: u32,
}

impl Cluster {
    fn of(members: &[&Histogram]) -> Self {
        let mut counts = vec![0; SYMBOLS];
        let mut total = 0;
        for (symbol, count) in members.iter().copied().flatten() {
            counts[usize::from(*symbol)] += count;
            total += count;
        }
        Self { counts, total }
    }

    /// Bits that all symbols of the cluster take together.
    fn bits(&self) -> f32 {
        let total = as_f32(self.total);
        let bits: f32 = self
            .counts
            .iter()
            .filter(|count| **count > 0)
            .map(|&count| as_f32(count) * log2(total / as_f32(count)))
            .sum();
        bits
    }

    fn costs(&self) -> Vec<f32> {
        let total = as_f32(self.total) + 1.0;
        self.counts
            .iter()
            .map(|&count| log2(total / (as_f32(count) + 0.02)))
            .collect()
    }

    fn with(&self, other: &Self) -> Self {
        let counts = self.counts.iter().zip(&other.counts);
        Self {
            counts: counts.map(|(a, b)| a + b).collect(),
            total: self.total + other.total,
        }
    }
}

/// The cluster of every histogram, and their number, at most `most`: k-means on the histograms, and then clusters
/// are merged for as long as the `price` of one, in bits, is more than it saves.
pub(crate) fn cluster(
    histograms: &[Histogram],
    most: usize,
    price: f32,
) -> Result<(Vec<u8>, usize), EncodeError> {
    let weight = |h: &Histogram| h.iter().map(|(_, count)| *count).sum::<u32>();
    let mut by_weight: Vec<usize> = (0..histograms.len()).collect();
    by_weight.sort_by_key(|&context| core::cmp::Reverse(weight(&histograms[context])));
    let seeds = by_weight
        .iter()
        .take(most)
        .filter(|&&context| weight(&histograms[context]) > 0);
    let mut clusters: Vec<Cluster> = seeds.map(|&c| Cluster::of(&[&histograms[c]])).collect();
    if clusters.is_empty() {
        clusters.push(Cluster::of(&[]));
    }
    let mut cluster_of = vec![0; histograms.len()];
    for _ in 0..ROUNDS {
        let costs = by_symbol(&clusters);
        let best = |histogram: &Histogram| cheapest(histogram, &costs, clusters.len());
        cluster_of = histograms.par_iter().map(best).collect();
        for (number, cluster) in clusters.iter_mut().enumerate() {
            let members = histograms.iter().zip(&cluster_of);
            let members: Vec<&Histogram> = members
                .filter(|(_, of)| **of == number)
                .map(|(histogram, _)| histogram)
                .collect();
            *cluster = Cluster::of(&members);
        }
    }
    merge(&mut clusters, &mut cluster_of, price);
    let count = clusters.len();
    let cluster_of = cluster_of
        .iter()
        .map(|&c| narrow("the number of clusters", c));
    Ok((cluster_of.collect::<Result<_, _>>()?, count))
}

/// What each symbol costs in every cluster: symbol by symbol, so that the costs of a histogram in all
/// clusters are sums of runs.
fn by_symbol(clusters: &[Cluster]) -> Vec<f32> {
    let costs: Vec<Vec<f32>> = clusters.par_iter().map(Cluster::costs).collect();
    let symbols = (0..SYMBOLS).flat_map(|symbol| costs.iter().map(move |costs| costs[symbol]));
    symbols.collect()
}

/// The first of the clusters in which a histogram costs least.
fn cheapest(histogram: &Histogram, costs: &[f32], clusters: usize) -> usize {
    let mut bits = vec![0.0; clusters];
    for (symbol, count) in histogram {
        let costs = &costs[usize::from(*symbol) * clusters..][..clusters];
        let count = as_f32(*count);
        for (bits, cost) in bits.iter_mut().zip(costs) {
            *bits += count * cost;
        }
    }
    let best = bits.iter().enumerate();
    let best = best.min_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(best, _)| best)
}

fn merge(clusters: &mut Vec<Cluster>, cluster_of: &mut [usize], price: f32) {
    let mut bits: Vec<f32> = clusters.iter().map(Cluster::bits).collect();
    // What a merge of two costs, kept between rounds.
    let loss =
        |a: &Cluster, b: &Cluster, bits_a: f32, bits_b: f32| a.with(b).bits() - bits_a - bits_b;
    let row = |b: usize| {
        let row = (0..b).map(|a| loss(&clusters[a], &clusters[b], bits[a], bits[b]));
        row.collect()
    };
    let mut losses: Vec<Vec<f32>> = (0..clusters.len()).into_par_iter().map(row).collect();
    loop {
        let pairs = losses
            .iter()
            .enumerate()
            .flat_map(|(b, row)| row.iter().enumerate().map(move |(a, loss)| (a, b, *loss)));
        let Some((a, b, least)) = pairs.min_by(|x, y| x.2.total_cmp(&y.2)) else {
            return;
        };
        if least > price {
            return;
        }
        // b (the higher) goes into a, and the last one takes its number.
        let last = clusters.len() - 1;
        clusters[a] = clusters[a].with(&clusters[b]);
        clusters.swap_remove(b);
        bits.swap_remove(b);
        bits[a] = clusters[a].bits();
        for cluster in cluster_of.iter_mut() {
            if *cluster == b {
                *cluster = a;
            } else if *cluster == last {
                *cluster = b;
            }
        }
        let moved = losses.pop();
        if let Some(moved) = moved.filter(|_| b < last) {
            for (other, loss) in moved.into_iter().enumerate() {
                if other != b {
                    let (low, high) = (other.min(b), other.max(b));
                    losses[high][low] = loss;
                }
            }
        }
        for other in 0..clusters.len() {
            if other != a {
                let (low, high) = (other.min(a), other.max(a));
                losses[high][low] = loss(&clusters[low], &clusters[high], bits[low], bits[high]);
            }
        }
    }
}

/// Counts are estimates here: what is lost above 2^24 does not matter.
#[expect(clippy::as_conversions, reason = "there is no From<u32> for f32")]
pub(crate) const fn as_f32(count: u32) -> f32 {
    count as f32
}

/// Binary logarithm of a positive number, to about three digits: `core` has none.
///
/// The exponent, and a polynomial for the mantissa.
pub(crate) fn log2(value: f32) -> f32 {
    let bits = value.to_bits();
    let exponent = as_f32(bits >> 23) - 127.0;
    let x = f32::from_bits(bits & 0x7f_ffff | 0x3f80_0000) - 1.0;
    // Least-squares on [0, 1), exact at both ends.
    exponent + x * (1.4388258 + x * (-0.6777338 + x * (0.3218534 + x * -0.0829454)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log2_is_close() {
        for n in 1..10_000_u32 {
            let value = as_f32(n) / 37.0;
            assert!((log2(value) - value.log2()).abs() < 0.002, "{value}");
        }
    }
}
