"""Where and how people signed in, and who comes by the city's single sign-on."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the columns."""
    op.add_column("person", sa.Column("last_sign_in", sa.BigInteger))
    op.add_column("person", sa.Column("subject", sa.String(500)))
    op.create_index("ix_person_subject", "person", ["subject"], unique=True)
    op.add_column("session", sa.Column("created", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("session", sa.Column("address", sa.String(64), nullable=False, server_default=""))
    op.add_column("session", sa.Column("agent", sa.String(200), nullable=False, server_default=""))
