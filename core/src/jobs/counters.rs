//! The counters of a run: each job names its own, in the order of its result's columns.

/// Makes `Counters` with one `i64` for each name, `add` and `columns`.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What a run did, or in a dry run would do, in the order of the result's columns.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[$doc])* pub $name: i64),* }

        impl Counters {
            /// Adds what another part of the run counted.
            pub fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
            }

            /// Name and value of every counter, in the order of the columns.
            pub fn columns(&self) -> impl Iterator<Item = (&'static str, i64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

pub(crate) use counters;
