"""The web page: one file a page in pages/, what pages are made of in parts/. Decides nothing."""
