"""Cases, their steps and their events; the districts and departments of people."""

import sqlalchemy as sa
from alembic import op

from gateway.city.database.migrations.kept import keep

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes the tables; nothing can change or take away what was done to a case."""
    for name in ("districts", "departments"):
        op.add_column("person", sa.Column(name, sa.JSON, nullable=False, server_default="[]"))
    op.create_table(
        "incident",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("receipt", sa.String(32), nullable=False, unique=True),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("severity", sa.String(16)),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("district", sa.String(64)),
        sa.Column("site", sa.String(128)),
        sa.Column("sensor", sa.String(400)),
        sa.Column("lat", sa.Float),
        sa.Column("lon", sa.Float),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("department", sa.String(64)),
        sa.Column("opened", sa.BigInteger, nullable=False, index=True),
        sa.Column("entered", sa.BigInteger, nullable=False),
        sa.Column("due", sa.BigInteger),
        sa.Column("left", sa.BigInteger),
        sa.Column("allowance", sa.BigInteger, nullable=False),
        sa.Column("filed", sa.BigInteger),
        sa.Column("dispatched", sa.BigInteger),
        sa.Column("handled", sa.BigInteger),
        sa.Column("closed", sa.BigInteger),
        sa.Column("late", sa.Boolean, nullable=False),
        sa.Column("returns", sa.Integer, nullable=False),
        sa.Column("reworks", sa.Integer, nullable=False),
        sa.Column("by_itself", sa.Boolean, nullable=False),
        sa.Column("merged_into", sa.Integer, sa.ForeignKey("incident.id")),
        sa.Column("asked", sa.JSON),
    )
    op.create_table(
        "incident_step",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("incident_id", sa.Integer, sa.ForeignKey("incident.id"), nullable=False, index=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
    op.create_table(
        "incident_event",
        sa.Column("event", sa.String(400), primary_key=True),
        sa.Column("incident_id", sa.Integer, sa.ForeignKey("incident.id"), nullable=False, index=True),
    )
    keep("incident_step")
