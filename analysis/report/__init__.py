"""How the findings are shown: tables, figures with their captions, the page, the terminal."""
