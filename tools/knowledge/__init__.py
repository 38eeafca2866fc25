"""Names causes from general knowledge of what pipelines run on. The knowledge is the YAML here."""

from tools.knowledge.engine import KnowledgeBase, KnowledgeDiagnostician

__all__ = ["KnowledgeBase", "KnowledgeDiagnostician"]
