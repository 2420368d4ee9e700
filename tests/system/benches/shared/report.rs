//! Medians, and lines of figures beside the levels that are wanted. A level that is missed is shown,
//! not punished: that is for whoever reads it, on whatever machine it was.

use std::fmt::Display;

pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let figures = sorted(figures);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => f64::NAN,
        len if len.is_multiple_of(2) => f64::midpoint(figures[middle - 1], figures[middle]),
        _ => figures[middle],
    }
}

fn sorted(figures: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<_> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures
}

/// The median of what two contestants' rounds give together, round by round, and its range.
pub(crate) fn ratio(name: &str, pairs: impl IntoIterator<Item = (f64, f64)>, wanted: &str) {
    let ratios = sorted(pairs.into_iter().map(|(one, other)| one / other));
    let range = match ratios.as_slice() {
        [least, .., most] => format!("{least:.2} to {most:.2}"),
        _ => String::new(),
    };
    line(name, format!("{:.2}  ({range})", median(ratios)), wanted);
}

/// A figure and the level that is wanted; empty if none is.
pub(crate) fn line(name: &str, figure: impl Display, wanted: &str) {
    let wanted = if wanted.is_empty() { String::new() } else { format!("wanted {wanted}") };
    let line = format!("  {name:<44} {figure:<26} {wanted}");
    println!("{}", line.trim_end());
}
