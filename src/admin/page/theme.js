// Before the first paint: the theme that was chosen here, else the system's.
{
  const system = matchMedia('(prefers-color-scheme: dark)');
  const root = document.documentElement;
  const stored = () => localStorage.getItem('foldline.theme');
  const isDark = () => (stored() ?? (system.matches ? 'dark' : 'light')) === 'dark';

  const show = () => {
    root.dataset.theme = isDark() ? 'dark' : 'light';
    const button = document.getElementById('theme');
    if (button) button.textContent = isDark() ? 'Light' : 'Dark';
    if (button) button.setAttribute('aria-label', isDark() ? 'Switch to light colours' : 'Switch to dark colours');
  };

  system.addEventListener('change', show);
  addEventListener('DOMContentLoaded', () => {
    document.getElementById('theme').addEventListener('click', () => {
      localStorage.setItem('foldline.theme', isDark() ? 'light' : 'dark');
      show();
    });
    show();
  });
  show();
}
