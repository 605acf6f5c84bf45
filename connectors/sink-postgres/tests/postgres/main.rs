//! The sink against a real PostgreSQL. `DATABASE_URL` names one; each test works in schemas of its own
//! and removes them.

mod support;

mod books;
mod values;
mod writes;
