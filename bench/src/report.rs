//! What was measured: printed as it comes, and kept for JSON.

use serde_json::{Value, json};

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    figures: Vec<Value>,
}

impl Report {
    /// A heading in the printed table.
    pub(crate) fn chapter(&self, title: &str) {
        println!("\n{title}");
    }

    /// One figure.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &str) {
        println!("  {name:<52} {value:>10.2} {unit}");
        self.figures.push(json!({"name": name, "value": value, "unit": unit}));
    }

    pub(crate) fn json(&self) -> String {
        format!("{:#}\n", Value::from(self.figures.clone()))
    }
}

/// The middle value; 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    let upper = quantile(values, 0.5);
    // Of an even number there are two in the middle; they are in order now.
    match values.len() / 2 {
        half if half > 0 && values.len().is_multiple_of(2) => {
            f64::midpoint(values[half - 1], values[half])
        }
        _ => upper,
    }
}

/// The value below which this share of all lies; 0 of none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index into a few thousand values"
)]
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len().saturating_sub(1) as f64 * share).round() as usize;
    values.get(at).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found_in_any_order() {
        assert_eq!(median(&mut [4.0, 1.0]), 2.5);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(quantile(&mut [4.0, 1.0, 3.0, 2.0], 1.0), 4.0);
        assert_eq!(median(&mut []), 0.0);
    }
}
