"""What people and their work leave behind, in SQLite or PostgreSQL: tables, migrations, transactions."""
