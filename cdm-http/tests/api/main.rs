//! The server's routes over fakes: what is refused, what is answered, and how.

mod answers;
mod audit;
mod console;
mod document;
mod listener;
mod postman;
mod refusals;
mod roles;
mod streams;
mod support;
mod tokens;
