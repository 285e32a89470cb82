//! How far a call is: a bar on a terminal, else a line for each batch.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `total` things are to be done.
    pub fn start(total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Progress { bar }
    }

    /// More has to be done than was known.
    pub fn add(&self, more: u64) {
        if let Some(bar) = &self.bar {
            bar.inc_length(more);
        }
    }

    /// A batch of `done` things came to `what`.
    pub fn batch(&self, done: u64, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.inc(done);
                bar.set_message(what.to_owned());
            }
            None => println!("{what}"),
        }
    }

    /// Something that has to be seen, whatever the bar does.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
