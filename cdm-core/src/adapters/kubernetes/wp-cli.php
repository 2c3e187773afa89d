<?php
// Loaded by wp before WordPress, in the jobs of Cloud Deployment Manager.

( static function (): void {
	$command = implode( ' ', array_slice( WP_CLI::get_runner()->arguments, 0, 2 ) );
	$done    = false;

	// Exit code 0 does not prove success: code that runs before the command, such as wp-config.php, a must-use plugin or
	// db-error.php, may exit with 0.
	WP_CLI::add_hook(
		"after_invoke:$command",
		static function () use ( &$done, $command ): void {
			$done = true;
			if ( 'cache flush' === $command ) {
				// The container's termination message. wp has printed the same line.
				file_put_contents( '/dev/termination-log', "Success: The cache was flushed.\n" );
			}
		}
	);
	register_shutdown_function(
		static function () use ( &$done ): void {
			if ( ! $done ) {
				fwrite( STDERR, "Error: the command ended before it did its work\n" );
				exit( 3 );
			}
		}
	);

	// The mounted file has the site of a batch's container. A `url` in a wp-cli.yml of the image would take precedence.
	$file = getenv( 'WP_CLI_CONFIG_PATH' );
	$text = $file ? (string) @file_get_contents( $file ) : '';
	if ( preg_match( '/^url: (\S+)$/m', $text, $found ) ) {
		WP_CLI::add_hook(
			'before_wp_load',
			static function () use ( $found ): void {
				WP_CLI::set_url( $found[1] );
			}
		);
	}

	if ( 'core install' === $command ) {
		// The last write of an installation. An interrupted installation lacks it.
		$fresh = false;
		WP_CLI::add_hook(
			"before_invoke:$command",
			static function () use ( &$fresh ): void {
				$fresh = ! is_blog_installed();
			}
		);
		WP_CLI::add_hook(
			"after_invoke:$command",
			static function () use ( &$fresh ): void {
				if ( $fresh && is_blog_installed() ) {
					update_option( 'cdm_installed', 'complete', false );
				}
			}
		);

		// wp_install() requests the site's own hostname to test rewriting, but the hostname has no route yet.
		WP_CLI::add_wp_hook(
			'pre_http_request',
			static function () {
				return new WP_Error( 'http_request_not_executed', 'An installation makes no HTTP request.' );
			}
		);
		// wp_guess_url() derives the URL from the path of the wp program, unless the URL is set.
		$url = WP_CLI::get_runner()->config['url'] ?? '';
		WP_CLI::add_hook(
			'after_wp_config_load',
			static function () use ( $url ): void {
				if ( '' !== $url && ! defined( 'WP_SITEURL' ) ) {
					define( 'WP_SITEURL', $url );
				}
			}
		);
	}
} )();
