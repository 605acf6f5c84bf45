//! Figures: median and spread, and the table in the bench's README.

use std::fmt::Write as _;
use std::path::Path;

use crate::Result;

/// One run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Events, rows or documents.
    pub(crate) events: u64,
    /// What `events` took, in seconds.
    pub(crate) seconds: f64,
    /// Until the first of them, in seconds; 0 where that means nothing.
    pub(crate) first: f64,
    /// CPU seconds of the measured process; 0 where there is none.
    pub(crate) cpu: f64,
    /// The most memory of the measured process, in MiB.
    pub(crate) peak: Option<f64>,
    /// The end state is that of the plain fold.
    pub(crate) right: bool,
}

/// Samples of one thing.
pub(crate) struct Figure {
    name: String,
    samples: Vec<Sample>,
}

/// All that was measured.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    lines: Vec<String>,
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Figure {
    fn of(&self, part: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(part).collect())
    }

    fn row(&self) -> String {
        let rate = |sample: &Sample| sample.events as f64 / sample.seconds;
        let lowest = self.samples.iter().map(rate).fold(f64::INFINITY, f64::min);
        let highest = self.samples.iter().map(rate).fold(0.0, f64::max);
        let cpu = self.of(|sample| sample.cpu);
        let peak = self.samples.iter().filter_map(|sample| sample.peak).collect::<Vec<_>>();
        let or_none = |found: bool, text: String| if found { text } else { "–".to_owned() };
        format!(
            "| {} | {:.0} | {:.0} – {:.0} | {:.2} | {} | {} | {} | {} |",
            self.name,
            self.of(rate),
            lowest,
            highest,
            self.of(|sample| sample.seconds),
            or_none(self.of(|s| s.first) > 0.0, format!("{:.2}", self.of(|s| s.first))),
            or_none(cpu > 0.0, format!("{cpu:.2}")),
            or_none(!peak.is_empty(), format!("{:.0}", median(peak))),
            if self.samples.iter().all(|sample| sample.right) { "yes" } else { "**no**" },
        )
    }
}

impl Report {
    /// Adds a run.
    pub(crate) fn add(&mut self, name: &str, sample: Sample) {
        eprintln!(
            "bench: {name}: {:.0} events/s, {:.2} s, first after {:.2} s, {:.2} s of CPU, {:.0} MiB, right: {}",
            sample.events as f64 / sample.seconds,
            sample.seconds,
            sample.first,
            sample.cpu,
            sample.peak.unwrap_or_default(),
            sample.right
        );
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.samples.push(sample),
            None => self.figures.push(Figure { name: name.to_owned(), samples: vec![sample] }),
        }
    }

    /// Adds a sentence.
    pub(crate) fn say(&mut self, line: String) {
        eprintln!("bench: {line}");
        self.lines.push(line);
    }

    /// Whether every end state was right.
    pub(crate) fn is_right(&self) -> bool {
        self.figures.iter().flat_map(|figure| &figure.samples).all(|sample| sample.right)
    }

    /// The table and the sentences, as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "| what | events/s (median) | lowest – highest | seconds | first after s | CPU s | peak MiB | end state right |\n\
             |---|---:|---:|---:|---:|---:|---:|---|\n",
        );
        for figure in &self.figures {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", figure.row());
        }
        for line in &self.lines {
            let _ = write!(text, "\n- {line}");
        }
        text
    }

    /// Puts the table between the marks of a README.
    pub(crate) fn write_into(&self, readme: &Path) -> Result<()> {
        const BEGIN: &str = "<!-- figures -->";
        const END: &str = "<!-- end of figures -->";
        let text = std::fs::read_to_string(readme)?;
        let (head, rest) =
            text.split_once(BEGIN).ok_or("the README has no mark for the figures")?;
        let (_, tail) = rest.split_once(END).ok_or("the README has no end mark of the figures")?;
        let table = self.markdown();
        std::fs::write(readme, format!("{head}{BEGIN}\n\n{table}\n\n{END}{tail}"))?;
        Ok(())
    }
}
