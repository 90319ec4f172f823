//! Curves over size, both axes logarithmic, as SVG.

use std::fmt::Write as _;

/// One plot.
#[derive(Debug)]
pub struct Plot<'a> {
    /// What is shown.
    pub title: &'a str,
    /// What the horizontal axis counts.
    pub x: &'a str,
    /// What the vertical axis shows, with its unit.
    pub y: &'a str,
    /// Name and points of each curve; points that are not positive have no place on a logarithmic axis.
    pub curves: Vec<(&'a str, Vec<(f64, f64)>)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Left, top, right and bottom of the axes.
const FRAME: [f64; 4] = [70.0, 40.0, 530.0, 370.0];
/// Told apart by the colour-blind too (Okabe, Ito).
const COLOURS: [&str; 8] =
    ["#0072b2", "#999999", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

impl Plot<'_> {
    /// The picture; `None` if there is nothing to draw a curve through.
    #[must_use]
    pub fn svg(&self) -> Option<String> {
        let points =
            || self.curves.iter().flat_map(|(_, points)| points).filter(|(x, y)| *x > 0.0 && *y > 0.0);
        let (x_low, x_high) = decades(points().map(|(x, _)| *x))?;
        let (y_low, y_high) = decades(points().map(|(_, y)| *y))?;
        let [left, top, right, bottom] = FRAME;
        let at_x = |x: f64| left + (x.log10() - x_low) / (x_high - x_low) * (right - left);
        let at_y = |y: f64| bottom - (y.log10() - y_low) / (y_high - y_low) * (bottom - top);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
             <text x=\"{left}\" y=\"24\" font-size=\"15\">{}</text>\n\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text x=\"18\" y=\"{}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {})\">{}</text>\n",
            escaped(self.title),
            f64::midpoint(left, right),
            HEIGHT - 10.0,
            escaped(self.x),
            f64::midpoint(top, bottom),
            f64::midpoint(top, bottom),
            escaped(self.y),
        );
        for decade in whole(x_low, x_high) {
            let x = at_x(10_f64.powf(decade));
            let _infallible = writeln!(
                svg,
                "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                10_f64.powf(decade)
            );
        }
        for decade in whole(y_low, y_high) {
            let y = at_y(10_f64.powf(decade));
            let _infallible = writeln!(
                svg,
                "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                y + 4.0,
                10_f64.powf(decade)
            );
        }
        for (number, ((name, points), colour)) in self.curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let mut line = String::new();
            for (x, y) in points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0) {
                let _infallible = write!(line, "{:.1},{:.1} ", at_x(*x), at_y(*y));
            }
            let height = top + 14.0 + 20.0 * f64::from(u32::try_from(number).unwrap_or(0));
            let _infallible = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
                 <path d=\"M{} {height}h20\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{}\" y=\"{}\">{}</text>",
                line.trim_end(),
                right + 16.0,
                right + 42.0,
                height + 4.0,
                escaped(name)
            );
        }
        svg.push_str("</svg>\n");
        Some(svg)
    }
}

/// The powers of ten around all values; `None` if there are none.
fn decades(values: impl Iterator<Item = f64> + Clone) -> Option<(f64, f64)> {
    let low = values.clone().min_by(f64::total_cmp)?.log10().floor();
    let high = values.max_by(f64::total_cmp)?.log10().ceil();
    Some((low, high.max(low + 1.0)))
}

fn whole(low: f64, high: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(low), |decade| Some(decade + 1.0)).take_while(move |decade| *decade <= high)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_factors_are_equal_distances_and_what_has_no_logarithm_is_left_out() {
        let points = vec![(1.0, 1.0), (10.0, 10.0), (100.0, 0.0), (100.0, 100.0)];
        let plot = Plot { title: "a < b", x: "n", y: "t", curves: vec![("ours", points)] };
        let svg = plot.svg().unwrap();
        assert!(svg.contains("points=\"70.0,370.0 300.0,205.0 530.0,40.0\""), "{svg}");
        assert!(svg.contains("a &lt; b"));
        assert_eq!(Plot { title: "", x: "", y: "", curves: vec![("", Vec::new())] }.svg(), None);
    }
}
