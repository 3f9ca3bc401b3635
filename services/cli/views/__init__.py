"""What people see: tables, texts, waterfalls."""
