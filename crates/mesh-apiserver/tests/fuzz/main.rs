//! What parses bytes from the network, fed with stored inputs and with changed ones: never a panic, always an answer, and nobody
//! else is hurt. `FUZZ_CASES` sets the number of changed inputs of each test (2048 unless told).

mod calls;
mod certificates;
mod connections;
mod corpus;
mod records;
