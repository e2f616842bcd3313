//! What is appended at once: whoever else writes waits for one part of a batch, not for all of it.

/// What a part may weigh.
const PART: usize = 1_024;

/// All of it in order, each part weighing [`PART`] at most, unless it is only one.
pub(crate) fn parts<T>(all: impl IntoIterator<Item = T>, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut parts, mut weighs) = (Vec::<Vec<T>>::new(), 0);
    for one in all {
        let more = weight(&one);
        weighs += more;
        match parts.last_mut().filter(|_| weighs <= PART) {
            Some(part) => part.push(one),
            None => {
                parts.push(vec![one]);
                weighs = more;
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_weighs_no_more_than_it_may_or_is_one() {
        let parts =
            |weights: &[usize]| -> Vec<usize> { parts(weights, |weight| **weight).iter().map(Vec::len).collect() };
        assert_eq!(parts(&[500, 524, 500, 500, 25]), [2, 2, 1]);
        assert_eq!(parts(&[1, 2_000, 1, 1_023]), [1, 1, 2]);
        assert_eq!(parts(&[]), [0; 0]);
    }
}
