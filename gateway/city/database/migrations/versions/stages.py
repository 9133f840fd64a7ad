"""Photographs of cases are of before or of after; who took them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the columns; what is there came with reports."""
    op.add_column("incident_photo", sa.Column("stage", sa.String(16), nullable=False, server_default="report"))
    op.add_column("incident_photo", sa.Column("who", sa.String(200), nullable=False, server_default="public"))
