from matplotlib import image

from fedmepd.data.figures import draw_phantoms


def test_picture_is_repeatable_and_shows_something(tmp_path):
    draw_phantoms(tmp_path / "a.png", sites=("site-1", "site-2"))
    draw_phantoms(tmp_path / "b.png", sites=("site-1", "site-2"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert image.imread(tmp_path / "a.png")[..., :3].std() > 0.1
