"""Tables that only grow: the database itself refuses to change or take away a row."""

from alembic import op

_POSTGRES = """
CREATE OR REPLACE FUNCTION citygate_kept() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$
"""


def keep(table: str) -> None:
    """Makes a table append-only."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_POSTGRES)
        op.execute(
            f"CREATE TRIGGER {table}_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION citygate_kept()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_kept_{change.lower()} BEFORE {change} ON {table}"
            f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
