\echo
\echo '━━ 9. A run that commits after every batch ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'In a session of its own, in small batches and with a rest between them. This session watches.'
\echo
\echo '   SET media_assets.batch_pause = ''100ms'';'
\echo '   CALL run_backfill(''lesson_assets'', batch => 50, execute => true);'
\echo
